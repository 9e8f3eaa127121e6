// Runs once for the header and once for each piece of a view; `element`, `trigger` and `watch` are given by Gradio.
// What is clicked is sent by name; all that is shown comes back as HTML. There are two roads: 'act' is answered at
// once, 'ask' waits for the model.

const page = (window.ccan ??= { busy: 0, waiting: null, asked: 0, focus: null });

const roadOf = (node) => (node?.closest('[data-event]')?.dataset.event === 'ask' ? 'ask' : 'act');

const send = (road, action, value) => {
  page.asked += 1;
  page.busy += 1;
  document.body.classList.add('ccan-busy');
  clearTimeout(page.patience);
  page.patience = setTimeout(answered, 30000);
  trigger(road, { action, value });
};
page.send ??= send;
const answered = () => {
  page.busy = 0;
  document.body.classList.remove('ccan-busy');
  clearTimeout(page.patience);
  const next = page.waiting;
  page.waiting = null;
  if (next) next();
};

// What had the keyboard's attention gets it back when its piece is drawn anew.
const keyOf = (node) => {
  const held = node?.closest?.('[data-do], .canvas, .brush');
  if (!held) return null;
  if (held.dataset.do) return ['data-do', held.dataset.do, held.dataset.value ?? held.dataset.key ?? ''];
  return ['class', held.className, String([...element.querySelectorAll(`.${held.className}`)].indexOf(held))];
};
const refocus = () => {
  const [kind, name, detail] = page.focus ?? [];
  if (!kind || (document.activeElement && document.activeElement !== document.body)) return;
  const found = [...element.querySelectorAll(kind === 'class' ? `.${CSS.escape(name)}` : `[data-do="${CSS.escape(name)}"]`)];
  const one =
    kind === 'class'
      ? found[Number(detail)]
      : found.find((node) => (node.dataset.value ?? node.dataset.key ?? '') === detail) ?? (found.length === 1 ? found[0] : null);
  one?.focus({ preventScroll: true });
};

const ask = (node) => {
  if (node.dataset.value === 'map') window.ccanMap?.warm(); // while the server answers
  page.focus = keyOf(node);
  send(roadOf(node), node.dataset.do, node.dataset.value);
};

element.addEventListener('click', (event) => {
  const control = event.target.closest('[data-do]');
  if (control && !control.matches('input')) return ask(control);
  const plane = event.target.closest('[data-plane]');
  if (plane) {
    const [x, y] = place(plane, event);
    return send(roadOf(plane), plane.dataset.plane, { x, y });
  }
  const canvas = event.target.closest('.canvas');
  if (canvas) {
    const [x, y] = place(canvas, event);
    page.focus = keyOf(canvas);
    return send(roadOf(canvas), 'point', { panel: canvas.dataset.panel, x, y });
  }
  if (event.target.closest('[data-theme]')) {
    const dark = document.body.classList.toggle('dark');
    window.ccanMap?.redraw();
    const address = new URL(window.location);
    address.searchParams.set('__theme', dark ? 'dark' : 'light');
    window.history.replaceState(null, '', address);
  }
});

// Sliders: the number beside follows at once; a live one is followed by the ranking, one request at a time.
const slide = (input) => {
  const value = input.dataset.key ? { stream: input.dataset.key, weight: input.value } : input.value;
  const go = () => send(roadOf(input), input.dataset.do, value);
  if (page.busy) page.waiting = go;
  else go();
};
element.addEventListener('input', (event) => {
  if (!event.target.matches('input[type=range]')) return;
  const output = event.target.parentElement.querySelector('output');
  if (output) output.textContent = event.target.value;
  if ('live' in event.target.dataset) slide(event.target);
});
element.addEventListener('change', (event) => {
  const input = event.target;
  if (input.matches('input[type=range]') && !('live' in input.dataset)) {
    page.focus = keyOf(input);
    send(roadOf(input), input.dataset.do, input.value);
  }
  if (input.matches('.uploader input')) {
    uploadFile(input.closest('.uploader'), input.files[0]);
    input.value = '';
  }
});

// Positions in a picture

// The cell of a picture's grids under the shares (x, y): [left, top, width, height] as shares, or null.
const cellAt = (canvas, x, y) => {
  for (const grid of canvas.dataset.grids.split(';')) {
    const [top, bottom, rows, columns] = grid.split(',').map(Number);
    if (x < 0 || x >= 1 || y < top || y >= bottom) continue;
    const tall = (bottom - top) / rows;
    return [Math.floor(x * columns) / columns, top + Math.floor((y - top) / tall) * tall, 1 / columns, tall];
  }
  return null;
};

const place = (canvas, event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};

const arrows = { ArrowUp: 'up', ArrowDown: 'down', ArrowLeft: 'left', ArrowRight: 'right' };
element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.target.matches('input[type=text][data-do]')) {
    page.focus = null; // what is written is written: letters are keys of the page again
    const { value, dataset } = event.target;
    event.target.blur();
    if ('clear' in dataset) event.target.value = '';
    return send(roadOf(event.target), dataset.do, value);
  }
  const control = event.target.closest('[data-do][role=button]');
  if (control && !control.matches('button') && ['Enter', ' '].includes(event.key)) {
    event.preventDefault();
    return ask(control);
  }
  const brush = event.target.closest('.brush');
  if (brush && (arrows[event.key] || event.key === ' ')) {
    event.preventDefault();
    return paintByKey(brush, event.key);
  }
  const canvas = event.target.closest('.canvas');
  if (!canvas || !arrows[event.key]) return;
  event.preventDefault();
  page.focus = keyOf(canvas);
  send(roadOf(canvas), 'move', { from: Number(canvas.dataset.cell), to: arrows[event.key] });
});

element.addEventListener('pointermove', (event) => {
  const canvas = event.target.closest('.canvas');
  if (!canvas) return;
  const cell = cellAt(canvas, ...place(canvas, event));
  const frame = canvas.querySelector('.hover').style;
  frame.display = cell ? 'block' : 'none';
  if (cell) [frame.left, frame.top, frame.width, frame.height] = cell.map((share) => `${100 * share}%`);
});
element.addEventListener('pointerout', (event) => {
  const canvas = event.target.closest('.canvas');
  if (canvas && !canvas.contains(event.relatedTarget)) canvas.querySelector('.hover').style.display = 'none';
});

// The brush: cells are drawn here while one paints, and sent as hexadecimal digits when the stroke ends.
const stroke = { brush: null, bits: null, to: true, last: null };
const bitsOf = (brush) => [...brush.dataset.mask].flatMap((digit) => [8, 4, 2, 1].map((bit) => (parseInt(digit, 16) & bit) > 0));
const digitsOf = (bits) => {
  let text = '';
  for (let k = 0; k < bits.length; k += 4) text += [8, 4, 2, 1].reduce((sum, bit, j) => sum + (bits[k + j] ? bit : 0), 0).toString(16);
  return text;
};
const drawCells = (brush, bits, cursor) => {
  const rows = Number(brush.dataset.rows), columns = Number(brush.dataset.columns);
  const cells = brush.querySelector('.cells');
  cells.replaceChildren();
  for (let k = 0; k < rows * columns; k += 1) {
    if (!bits[k] && k !== cursor) continue;
    const cell = document.createElement('i');
    if (k === cursor) cell.className = bits[k] ? 'cursor painted' : 'cursor';
    Object.assign(cell.style, {
      left: `${(100 * (k % columns)) / columns}%`, top: `${(100 * Math.floor(k / columns)) / rows}%`,
      width: `${100 / columns}%`, height: `${100 / rows}%`,
    });
    cells.append(cell);
  }
};
const brushCell = (brush, event) => {
  const [x, y] = place(brush, event);
  const rows = Number(brush.dataset.rows), columns = Number(brush.dataset.columns);
  if (x < 0 || x >= 1 || y < 0 || y >= 1) return null;
  return Math.floor(y * rows) * columns + Math.floor(x * columns);
};
const strokeTo = (event) => {
  const { brush, bits } = stroke;
  const columns = Number(brush.dataset.columns);
  const cell = brushCell(brush, event);
  if (cell === null) return;
  const from = stroke.last ?? cell;
  const steps = Math.max(1, Math.abs((cell % columns) - (from % columns)), Math.abs(Math.floor(cell / columns) - Math.floor(from / columns)));
  for (let k = 0; k <= steps; k += 1) {
    const column = Math.round((from % columns) + ((cell % columns) - (from % columns)) * (k / steps));
    const row = Math.round(Math.floor(from / columns) + (Math.floor(cell / columns) - Math.floor(from / columns)) * (k / steps));
    bits[row * columns + column] = stroke.to;
  }
  stroke.last = cell;
  drawCells(brush, bits);
};
element.addEventListener('pointerdown', (event) => {
  const brush = event.target.closest('.brush:not(.still)');
  const cell = brush && brushCell(brush, event);
  if (!brush || cell === null) return;
  event.preventDefault();
  brush.focus({ preventScroll: true });
  brush.setPointerCapture(event.pointerId);
  const bits = bitsOf(brush);
  Object.assign(stroke, { brush, bits, to: !bits[cell], last: null });
  strokeTo(event);
});
element.addEventListener('pointermove', (event) => stroke.brush && strokeTo(event));
const endStroke = () => {
  if (!stroke.brush) return;
  const { brush, bits } = stroke;
  stroke.brush = null;
  brush.dataset.mask = digitsOf(bits);
  page.focus = keyOf(brush);
  send(roadOf(brush), brush.dataset.action ?? 'paint', brush.dataset.mask);
};
element.addEventListener('pointerup', endStroke);
element.addEventListener('pointercancel', endStroke);
const paintByKey = (brush, key) => {
  const rows = Number(brush.dataset.rows), columns = Number(brush.dataset.columns);
  const bits = bitsOf(brush);
  page.cursor ??= 0;
  if (key === ' ') {
    bits[page.cursor] = !bits[page.cursor];
    brush.dataset.mask = digitsOf(bits);
    drawCells(brush, bits, page.cursor);
    page.focus = keyOf(brush);
    return send(roadOf(brush), brush.dataset.action ?? 'paint', brush.dataset.mask);
  }
  const row = Math.floor(page.cursor / columns), column = page.cursor % columns;
  const to = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1] }[key];
  page.cursor = Math.min(rows - 1, Math.max(0, to[0])) * columns + Math.min(columns - 1, Math.max(0, to[1]));
  drawCells(brush, bits, page.cursor);
};

// Pictures from outside go to the server inside the request and are written nowhere.
const uploadFile = (zone, file) => {
  if (!zone || !file) return;
  const asked = { name: file.name || 'pasted picture', size: file.size, data: '', as: zone.dataset.upload };
  const go = () => send('ask', 'upload', asked);
  if (file.size > Number(zone.dataset.limit)) return go();
  const reader = new FileReader();
  reader.onload = () => {
    asked.data = reader.result.split(',')[1] ?? '';
    go();
  };
  reader.readAsDataURL(file);
};
const zoneOf = (event) => event.target.closest?.('.uploader');
element.addEventListener('dragover', (event) => {
  if (!zoneOf(event)) return;
  event.preventDefault();
  zoneOf(event).classList.add('over');
});
element.addEventListener('dragleave', (event) => zoneOf(event)?.classList.remove('over'));
element.addEventListener('drop', (event) => {
  if (!zoneOf(event)) return;
  event.preventDefault();
  zoneOf(event).classList.remove('over');
  uploadFile(zoneOf(event), event.dataTransfer.files[0]);
});
document.addEventListener('paste', (event) => {
  const file = [...(event.clipboardData?.files ?? [])][0];
  const zone = element.querySelector('.uploader');
  if (file && zone?.offsetParent) uploadFile(zone, file);
});

// Keys of the whole page; only the header listens, so that each is heard once.
const keys = {
  n: ['step', '1'], p: ['step', '-1'], r: ['random', ''], h: ['hardest', ''],
  ']': ['neighbour', '1'], '[': ['neighbour', '-1'],
};
const tabs = { 1: 'overview', 2: 'rank', 3: 'attention', 4: 'parts', 5: 'map', 6: 'errors', 7: 'compare', 8: 'learn', 9: 'runs' };
if (element.closest('#ccan-header') || element.id === 'ccan-header') {
  document.addEventListener('keydown', (event) => {
    const header = element.querySelector('header[data-link]');
    if (!header || event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea, [contenteditable]')) return;
    const hot = [...document.querySelectorAll(`.ccan [data-hot="${CSS.escape(event.key)}"]`)].find((one) => one.offsetParent);
    // Enter belongs to whatever has the focus, unless that is chosen already; and what is held down is pressed once.
    const focused = event.target.closest('button, summary, a, [role=button]');
    const busy = event.key === 'Enter' && focused?.getAttribute('aria-pressed') !== 'true' && focused;
    if (hot && (!busy || busy === hot)) {
      if (event.repeat) return event.preventDefault();
      event.preventDefault(); // the letter must not stand in the field that it opens
      if (hot.matches('input')) return hot.focus();
      hot.click();
      page.focus = null;
      return;
    }
    if (keys[event.key]) send(roadOf(header), ...keys[event.key]);
    if (event.key === 'b') header.querySelector('[data-do=blur]')?.click();
    if (tabs[event.key]) header.querySelector(`#ccan-tab-${tabs[event.key]}`)?.click();
    if (event.key === '?') document.querySelectorAll('.ccan details.help').forEach((help) => help.offsetParent && (help.open = !help.open));
  });
}

// A piece that waits for something looks again by itself, until nothing in it waits. An answer that is as before does
// not reach `watch`, so it cannot be what sets the next look going.
let looking = null;
const lookAgain = () => {
  const waiting = element.querySelector('[data-poll]');
  if (!waiting || looking) return;
  looking = setInterval(() => {
    const still = element.querySelector('[data-poll]');
    if (!still) {
      clearInterval(looking);
      looking = null;
    } else if (still.offsetParent && !page.busy) trigger(roadOf(still), { action: 'look', value: '' });
  }, Number(waiting.dataset.poll));
};

watch('value', () => {
  const map = element.querySelector('.mapplot');
  if (map) window.ccanMap?.show(map);
  for (const field of element.querySelectorAll('[data-address]')) field.value = new URL(field.dataset.address, window.location.origin + window.location.pathname);
  refocus();
  lookAgain();
  // The header carries the page's link; the address bar follows it.
  const header = element.querySelector('header[data-link]');
  if (!header) return;
  answered();
  document.body.dataset.ccanTab = header.dataset.tab;
  for (const tab of header.querySelectorAll('[role=tab]')) {
    const view = document.getElementById(tab.getAttribute('aria-controls'));
    view?.setAttribute('role', 'tabpanel');
    view?.setAttribute('aria-labelledby', tab.id);
  }
  const address = new URL(header.dataset.link, window.location);
  const theme = new URL(window.location).searchParams.get('__theme');
  if (theme) address.searchParams.set('__theme', theme);
  const shown = address.toString().replaceAll('%2F', '/').replaceAll('%2C', ',').replaceAll('%3A', ':');
  window.history.replaceState(null, '', shown);
  header.querySelector('a[data-save]')?.click();
});
