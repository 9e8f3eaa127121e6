// Runs once for the header and once for each view; `element`, `trigger` and `watch` are given by Gradio.
// What is clicked is sent by name; all that is shown comes back as HTML. There are two roads: 'act' is answered at
// once, 'ask' waits for the model.

const send = (node, action, value) => {
  document.body.classList.add('ccan-busy');
  clearTimeout(window.ccanBusy);
  window.ccanBusy = setTimeout(() => document.body.classList.remove('ccan-busy'), 15000);
  trigger(node.closest('[data-event]')?.dataset.event === 'ask' ? 'ask' : 'act', { action, value });
};

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

element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-do]');
  if (button) return send(button, button.dataset.do, button.dataset.value);
  const canvas = event.target.closest('.canvas');
  if (canvas) {
    const [x, y] = place(canvas, event);
    return send(canvas, 'point', { panel: canvas.dataset.panel, x, y });
  }
  if (event.target.closest('[data-theme]')) {
    const dark = document.body.classList.toggle('dark');
    const address = new URL(window.location);
    address.searchParams.set('__theme', dark ? 'dark' : 'light');
    window.history.replaceState(null, '', address);
  }
});

element.addEventListener('input', (event) => {
  const output = event.target.matches('input[type=range]') && event.target.parentElement.querySelector('output');
  if (output) output.textContent = event.target.value;
});

element.addEventListener('change', (event) => {
  if (event.target.matches('input[type=range]')) send(event.target, event.target.dataset.do, event.target.value);
  if (event.target.matches('.uploader input')) {
    uploadFile(event.target.closest('.uploader'), event.target.files[0]);
    event.target.value = '';
  }
});

const arrows = { ArrowUp: 'up', ArrowDown: 'down', ArrowLeft: 'left', ArrowRight: 'right' };
element.addEventListener('keydown', (event) => {
  const canvas = event.target.closest('.canvas');
  if (!canvas || !arrows[event.key]) return;
  event.preventDefault();
  send(canvas, 'move', { from: Number(canvas.dataset.cell), to: arrows[event.key] });
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

// Pictures from outside go to the server inside the request and are written nowhere.
const uploadFile = (zone, file) => {
  if (!zone || !file) return;
  const asked = { name: file.name || 'pasted picture', size: file.size, data: '' };
  const ask = () => {
    document.body.classList.add('ccan-busy');
    trigger('ask', { action: 'upload', value: asked });
  };
  if (file.size > Number(zone.dataset.limit)) return ask();
  const reader = new FileReader();
  reader.onload = () => {
    asked.data = reader.result.split(',')[1] ?? '';
    ask();
  };
  reader.readAsDataURL(file);
};
const zone = () => element.querySelector('.uploader');
element.addEventListener('dragover', (event) => {
  if (event.target.closest('.uploader')) {
    event.preventDefault();
    zone().classList.add('over');
  }
});
element.addEventListener('dragleave', () => zone()?.classList.remove('over'));
element.addEventListener('drop', (event) => {
  if (!event.target.closest('.uploader')) return;
  event.preventDefault();
  zone().classList.remove('over');
  uploadFile(zone(), event.dataTransfer.files[0]);
});
document.addEventListener('paste', (event) => {
  const file = [...(event.clipboardData?.files ?? [])][0];
  if (file && zone()?.offsetParent) uploadFile(zone(), file);
});

// The header carries the page's link; the address bar follows it.
watch('value', () => {
  const header = element.querySelector('header[data-link]');
  if (!header) return;
  document.body.classList.remove('ccan-busy');
  const address = new URL(header.dataset.link, window.location);
  const theme = new URL(window.location).searchParams.get('__theme');
  if (theme) address.searchParams.set('__theme', theme);
  window.history.replaceState(null, '', address.toString().replaceAll('%2F', '/').replaceAll('%2C', ','));
});
