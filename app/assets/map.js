// The embedding maps. Their points come once; what is chosen stands in the page (`.mapplot[data-map]`) and is drawn from
// there. The drawing is kept when the page around it is drawn anew. `server` and `element` are given by Gradio.

const GRID = 65535, CORNERS = 64, SVG_POINTS = 3000;
const node = document.createElement('div');
node.className = 'plot';
const tip = document.createElement('div');
tip.className = 'maptip';
const notice = document.createElement('p');
notice.className = 'notice';
const held = { kept: {}, state: null, turn: 0, peeks: new Map(), wired: false };

const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
const pairs = (text) => new Uint16Array(bytes(text).buffer);
const webgl = (() => {
  const canvas = document.createElement('canvas');
  return Boolean(canvas.getContext('webgl2') ?? canvas.getContext('webgl'));
})();

// What was asked for once is kept, unless it did not come.
const whole = (found) => {
  if (found?.error) throw new Error(found.error);
  return found;
};
const once = (name, ask) => (held.kept[name] ??= ask().then(whole).catch((error) => {
  delete held.kept[name];
  throw error;
}));

// Plotly's own file, from the package; a version that something else on the page may hold under its name is left alone.
const loadPlotly = () =>
  once('plotly', () => server.plotly('').then((code) => new Promise((done, failed) => {
    const script = document.createElement('script');
    script.src = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
    script.onload = () => { URL.revokeObjectURL(script.src); done(window.Plotly); };
    script.onerror = failed;
    document.head.append(script);
  })));

const loadPoints = (key) =>
  once(`points ${key}`, () => server.points(key).then(whole).then((sent) => {
    const maps = {};
    for (const [name, one] of Object.entries(sent.maps)) {
      maps[name] = { x: pairs(one.x), y: pairs(one.y), trust: one.trust, agreement: bytes(one.agreement) };
    }
    const query = bytes(sent.query);
    const step = webgl ? 1 : Math.ceil(sent.count / SVG_POINTS);
    const drawn = step === 1 ? null : Uint32Array.from({ length: Math.ceil(sent.count / step) }, (_, k) => k * step);
    return { count: sent.count, maps, query, drawn };
  }));
const loadGroups = (key, colour) =>
  once(`groups ${key} ${colour}`, () => server.groups({ key, colour }).then(whole).then((sent) => ({ colours: sent.colours, of: pairs(sent.of) })));

// A lasso: corners as four hexadecimal digits each way; the same test as `app.maps.within`, on the same whole numbers.
const cornersOf = (lasso) => {
  const digits = lasso.split(':')[2] ?? '';
  const corners = [];
  for (let k = 0; k < digits.length; k += 8) corners.push([parseInt(digits.slice(k, k + 4), 16), parseInt(digits.slice(k + 4, k + 8), 16)]);
  return corners;
};
const within = (x, y, corners) => {
  const found = [];
  for (let p = 0; p < x.length; p += 1) {
    let inside = false;
    for (let i = 0, j = corners.length - 1; i < corners.length; j = i, i += 1) {
      const [xi, yi] = corners[i], [xj, yj] = corners[j];
      if (yi > y[p] !== yj > y[p] && x[p] < ((xj - xi) * (y[p] - yi)) / (yj - yi) + xi) inside = !inside;
    }
    if (inside) found.push(p);
  }
  return found;
};
// Fewer corners: those that change the shape least go first (Visvalingam's areas).
const simpler = (corners) => {
  const left = corners.filter(([x, y], k) => k === 0 || x !== corners[k - 1][0] || y !== corners[k - 1][1]);
  const area = (k) => {
    const [a, b, c] = [left[(k + left.length - 1) % left.length], left[k], left[(k + 1) % left.length]];
    return Math.abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]));
  };
  while (left.length > CORNERS) {
    let least = 0;
    for (let k = 1; k < left.length; k += 1) if (area(k) < area(least)) least = k;
    left.splice(least, 1);
  }
  return left;
};
const textOf = (name, corners) =>
  `${name}:${held.state.key}:` + corners.flat().map((number) => number.toString(16).padStart(4, '0')).join('');

const ink = () => getComputedStyle(node).getPropertyValue('--ink').trim() || '#1c2430';
const sheet = () => getComputedStyle(node).getPropertyValue('--sheet').trim() || '#ffffff';
const pickColour = '#e69f00';

// A colour between a point's own and the paper's: how much of its neighbourhood the map has kept.
const faded = (colour, share, paper) => {
  const [a, b] = [colour, paper].map((one) => [1, 3, 5].map((k) => parseInt(one.slice(k, k + 2), 16)));
  return `#${a.map((part, k) => Math.round(b[k] + (part - b[k]) * share).toString(16).padStart(2, '0')).join('')}`;
};
const coloursOf = (points, name, groups, trust) => {
  const { agreement } = points.maps[name];
  const paper = sheet(), known = new Map();
  const one = (p) => {
    const own = groups.colours[groups.of[p]];
    if (!trust) return own;
    const level = Math.round(agreement[p] / 25.5);
    const key = `${own} ${level}`;
    if (!known.has(key)) known.set(key, faded(own, 0.12 + 0.088 * level, paper));
    return known.get(key);
  };
  return Array.from(points.drawn ?? points.query, (value, k) => one(points.drawn ? value : k));
};

const kind = webgl ? 'scattergl' : 'scatter'; // one kind: those of another lie below or above
const traces = (state, points, groups, selected) => {
  const found = [];
  const pick = (values) => (points.drawn ? Array.from(points.drawn, (p) => values[p]) : values);
  const small = points.count > 6000 ? 4 : 6;
  const sizes = pick(Array.from(points.query, (query) => (query ? small + 2 : small)));
  const chosen = new Set(points.drawn && selected ? selected : []);
  const selectedpoints = !selected ? null : points.drawn ? [...points.drawn.keys()].filter((k) => chosen.has(points.drawn[k])) : selected;
  state.maps.forEach((name, place) => {
    const axes = place ? { xaxis: `x${place + 1}`, yaxis: `y${place + 1}` } : { xaxis: 'x', yaxis: 'y' };
    const { x, y } = points.maps[name];
    found.push({
      ...axes, type: kind, mode: 'markers', x: pick(x), y: pick(y), meta: 'points', hoverinfo: 'none',
      marker: { color: coloursOf(points, name, groups, state.trust), size: sizes, opacity: 0.85, line: { width: 0 } },
      selectedpoints, selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.12 } },
    });
    const spokes = state.spokes[name] ?? [];
    const lines = { x: [], y: [] };
    for (const other of spokes) {
      lines.x.push(x[state.focus], x[other], null);
      lines.y.push(y[state.focus], y[other], null);
    }
    found.push({ ...axes, type: kind, mode: 'lines', ...lines, hoverinfo: 'skip', line: { color: ink(), width: 1.2 }, opacity: 0.75 });
    const rings = { x: [], y: [], size: [], symbol: [], color: [], text: [], width: [] };
    const ring = (px, py, size, symbol, color, words = '') => {
      rings.x.push(px); rings.y.push(py); rings.size.push(size); rings.symbol.push(symbol); rings.color.push(color); rings.text.push(words); rings.width.push(size > 9 ? 2.2 : 1);
    };
    for (const other of spokes) ring(x[other], y[other], 6, 'circle-open', ink());
    if (state.match >= 0) ring(x[state.match], y[state.match], 13, 'square-open', pickColour);
    if (state.query >= 0) ring(x[state.query], y[state.query], 15, 'circle-open', pickColour);
    if (state.focus >= 0 && state.focus !== state.query && state.focus !== state.match) ring(x[state.focus], y[state.focus], 15, 'circle-open', ink());
    if (state.placed[name]) ring(...state.placed[name], 18, 'diamond-open', pickColour, '≈ your picture');
    found.push({
      ...axes, type: kind, mode: 'markers+text', x: rings.x, y: rings.y, text: rings.text, textposition: 'top center', hoverinfo: 'skip',
      textfont: { color: ink(), size: 11 }, marker: { size: rings.size, symbol: rings.symbol, color: rings.color, line: { width: rings.width, color: rings.color } },
    });
  });
  return found;
};

const layout = (state, points) => {
  const count = state.maps.length, gap = 0.012;
  const found = {
    margin: { l: 2, r: 2, t: 48, b: 2 }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', showlegend: false, hovermode: 'closest',
    dragmode: 'lasso', uirevision: `${state.key} ${state.maps}`, selectionrevision: held.turn, selections: [], shapes: [], annotations: [],
    font: { color: ink(), size: 12 }, modebar: { bgcolor: 'rgba(0,0,0,0)', color: '#8a9099', activecolor: pickColour, orientation: 'h' },
    newselection: { line: { color: pickColour, width: 1.5, dash: 'solid' } }, activeselection: { fillcolor: 'rgba(0,0,0,0)' },
  };
  state.maps.forEach((name, place) => {
    const end = place ? String(place + 1) : '';
    const from = place / count + (place ? gap : 0), to = (place + 1) / count - (place < count - 1 ? gap : 0);
    const shared = { visible: false, range: [-0.04 * GRID, 1.04 * GRID], zeroline: false, showgrid: false };
    found[`xaxis${end}`] = { ...shared, domain: [from, to], anchor: `y${end}` };
    found[`yaxis${end}`] = { ...shared, domain: [0, 1], anchor: `x${end}`, scaleanchor: `x${end}` };
    found.annotations.push({
      text: `<b>${name}</b> · trustworthiness ${points.maps[name].trust.toFixed(2)}`, showarrow: false, xref: 'paper', yref: 'paper', x: from, y: 1,
      xanchor: 'left', yanchor: 'bottom', font: { size: 12, color: ink() },
    });
    if (state.lasso.split(':')[0] === name) {
      found.shapes.push({
        type: 'path', xref: `x${end}`, yref: `y${end}`, path: `M${cornersOf(state.lasso).map((one) => one.join(' ')).join('L')}Z`,
        line: { color: pickColour, width: 1.5 }, fillcolor: 'rgba(230,159,0,.07)',
      });
    }
  });
  return found;
};

const numberOf = (point) => {
  if (point?.data?.meta !== 'points') return null;
  const { drawn } = held.now;
  return drawn ? drawn[point.pointNumber] : point.pointNumber;
};

// One wait only: what the pointer has left is not asked for.
const peek = (event) => {
  const number = numberOf(event.points?.[0]);
  clearTimeout(held.patience);
  held.over = number;
  if (number === null) return;
  const { clientX, clientY } = event.event;
  held.patience = setTimeout(async () => {
    const { key, blur } = held.state;
    const name = `${key} ${blur} ${number}`;
    if (!held.peeks.has(name)) held.peeks.set(name, server.peek({ key, point: number, blur }).then(whole).catch(() => null));
    const found = await held.peeks.get(name);
    if (!found || held.over !== number) return;
    const picture = document.createElement('img');
    picture.src = found.picture;
    picture.alt = '';
    const lines = document.createElement('div');
    for (const words of found.words) {
      const line = document.createElement('span');
      line.textContent = words;
      lines.append(line);
    }
    tip.replaceChildren(picture, lines);
    const box = node.getBoundingClientRect();
    const x = clientX - box.left, y = clientY - box.top;
    tip.style.left = `${Math.min(x + 14, box.width - 230)}px`;
    tip.style.top = `${Math.min(y + 14, box.height - 130)}px`;
    tip.classList.add('seen');
  }, 60);
};
const hide = () => {
  clearTimeout(held.patience);
  held.over = null;
  tip.classList.remove('seen');
};

const wire = () => {
  if (held.wired) return;
  held.wired = true;
  const send = (action, value) => window.ccan.send('act', action, value);
  node.on('plotly_hover', peek);
  node.on('plotly_unhover', hide);
  node.on('plotly_click', (event) => {
    const number = numberOf(event.points?.[0]);
    if (number !== null) send('dot', String(number));
  });
  node.on('plotly_selected', (event) => {
    const shape = event?.lassoPoints ?? event?.range;
    if (!shape) return;
    hide();
    const axis = Object.keys(shape).find((name) => name.startsWith('x'));
    const xs = shape[axis], ys = shape[axis.replace('x', 'y')];
    const name = held.state.maps[axis === 'x' ? 0 : Number(axis.slice(1)) - 1];
    const raw = event.lassoPoints ? xs.map((x, k) => [x, ys[k]]) : [[xs[0], ys[0]], [xs[1], ys[0]], [xs[1], ys[1]], [xs[0], ys[1]]];
    const corners = simpler(raw.map((one) => one.map((number) => Math.min(GRID, Math.max(0, Math.round(number))))));
    if (corners.length >= 3) send('lasso', textOf(name, corners));
  });
  node.on('plotly_deselect', () => held.state.lasso && send('lasso', ''));
};

const draw = async (holder) => {
  const state = JSON.parse(holder.dataset.map);
  const turn = (held.turn += 1);
  const [P, points, groups] = await Promise.all([loadPlotly(), loadPoints(state.key), loadGroups(state.key, state.colour)]);
  if (turn !== held.turn) return;
  Object.assign(held, { state, now: points });
  const lassoed = points.maps[state.lasso.split(':')[0]];
  const selected = lassoed ? within(lassoed.x, lassoed.y, cornersOf(state.lasso)) : null;
  const config = {
    displaylogo: false, scrollZoom: true, responsive: true, doubleClick: 'reset+autosize',
    modeBarButtons: [['lasso2d', 'select2d', 'pan2d', 'zoom2d', 'resetScale2d']], displayModeBar: true,
  };
  await P.react(node, traces(state, points, groups, selected), layout(state, points), config);
  wire();
  P.Plots.resize(node);
  holder.dataset.drawn = state.key;
  holder.dataset.selected = selected ? String(selected.length) : '';
};

window.ccanMap = {
  warm: () => loadPlotly().catch(() => null), // what fails is said when it is needed
  show: (holder) => {
    held.holder = holder;
    holder.replaceChildren(node, tip);
    if (!webgl) {
      notice.textContent = 'This browser has no WebGL: the map is drawn as SVG, in larger worlds a part of its points; lasso and counts take all of them.';
      holder.after(notice);
    }
    draw(holder).catch((error) => {
      notice.textContent = `The map cannot be drawn: ${error?.message ?? error}`;
      holder.after(notice);
    });
  },
  redraw: () => held.holder?.offsetParent && draw(held.holder), // in other colours
};
