
// The matrix: callers down, called ones across. One canvas as large as what is seen of it.

const NAMED = 11; // From this size of cells on.
const headName = party => party.kind === 'workload' ? party.name : longName(party);
const matrix = {strip: 24, rows: [], columns: [], size: 14, head: 150, top: 130, cursor: [0, 0], isSized: false};

function buildMatrix() {
  const scroll = byId('matrix-scroll');
  scroll.addEventListener('scroll', paintMatrix, {passive: true});
  scroll.addEventListener('pointermove', event => showTip(cellAt(event), event));
  scroll.addEventListener('pointerleave', hideTip);
  scroll.addEventListener('click', event => {
    const cell = cellAt(event);
    if (!cell) return;
    matrix.cursor = cell;
    if (cell[0] < 0) focusOn(matrix.columns[cell[1]]);
    else if (cell[1] < 0) focusOn(matrix.rows[cell[0]]);
    else explainPair(matrix.rows[cell[0]], matrix.columns[cell[1]]);
  });
  scroll.addEventListener('keydown', moveInMatrix);
  scroll.addEventListener('focus', paintMatrix);
  scroll.addEventListener('blur', paintMatrix);
  byId('zoom').addEventListener('input', event => { matrix.size = Number(event.target.value); matrix.isSized = true; drawMatrix(); });
}

// The row and column under the pointer; -1 for the headings.
function cellAt(event) {
  const scroll = byId('matrix-scroll'), box = scroll.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const column = x < matrix.head ? -1 : Math.floor((x - matrix.head + scroll.scrollLeft) / matrix.size);
  const row = y < matrix.top ? -1 : Math.floor((y - matrix.top + scroll.scrollTop) / matrix.size);
  return row >= matrix.rows.length || column >= matrix.columns.length || (row < 0 && column < 0) ? null : [row, column];
}

function moveInMatrix(event) {
  const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity], PageUp: [-10, 0], PageDown: [10, 0]};
  const [rows, columns] = [matrix.rows.length, matrix.columns.length];
  if (rows === 0 || columns === 0) return;
  const clamp = (value, most) => Math.max(0, Math.min(most - 1, value));
  if (event.key in steps) {
    event.preventDefault();
    const [down, across] = steps[event.key];
    matrix.cursor = [clamp(matrix.cursor[0] + down, rows), clamp(matrix.cursor[1] + across, columns)];
    const scroll = byId('matrix-scroll'), [x, y] = [matrix.cursor[1] * matrix.size, matrix.cursor[0] * matrix.size];
    const [wide, high] = [scroll.clientWidth - matrix.head - matrix.size, scroll.clientHeight - matrix.top - matrix.size];
    scroll.scrollLeft = Math.min(x, Math.max(scroll.scrollLeft, x - wide));
    scroll.scrollTop = Math.min(y, Math.max(scroll.scrollTop, y - high));
    paintMatrix();
  } else if (event.key === 'Enter') {
    event.preventDefault();
    explainPair(matrix.rows[clamp(matrix.cursor[0], rows)], matrix.columns[clamp(matrix.cursor[1], columns)]);
  }
}

function drawMatrix() {
  const focus = state.focus, rows = new Uint8Array(count), columns = new Uint8Array(count);
  for (let from = 0; from < count; from++) {
    for (let to = 0; to < count; to++) {
      if (fitsFocus(from, to)) { rows[from] = 1; columns[to] = 1; }
    }
  }
  const among = wanted => ordered.filter(at => wanted[at]);
  [matrix.rows, matrix.columns] = [among(rows), among(columns)];
  const scroll = byId('matrix-scroll');
  const most = Math.max(matrix.rows.length, matrix.columns.length, 1);
  // All of it in sight where names can still be read, else as wide as the window; at the least three pixels.
  const fit = Math.floor(Math.min(scroll.clientWidth - 190, scroll.clientHeight - 170) / most), wide = Math.floor((scroll.clientWidth - 190) / most);
  if (!matrix.isSized) matrix.size = fit > NAMED ? Math.min(most < 16 ? 34 : 22, fit) : Math.max(3, Math.min(13, wide));
  byId('zoom').value = matrix.size;
  // Names of workloads where they can be read, within a strip with those of namespaces.
  const longest = (indices, name) => Math.max(0, ...indices.map(at => name(parties[at]).length));
  const room = indices => matrix.size >= NAMED ? Math.min(190, 14 + longest(indices, headName) * 6.6) : 0;
  const strip = matrix.size >= NAMED ? 24 : Math.min(150, 24 + longest([...matrix.rows, ...matrix.columns], party => groupName(groupOf(party))) * 6.6);
  matrix.strip = strip;
  matrix.head = strip + room(matrix.rows);
  matrix.top = strip + room(matrix.columns);
  const space = byId('matrix-space');
  space.style.width = matrix.head + matrix.columns.length * matrix.size + 12 + 'px';
  space.style.height = matrix.top + matrix.rows.length * matrix.size + 12 + 'px';
  paintMatrix();
  return matrix.rows.length > 0 && (focus < 0 || matrix.columns.length > 0);
}

let matrixFrame = 0;
function paintMatrix() {
  if (!matrixFrame) matrixFrame = requestAnimationFrame(() => { matrixFrame = 0; paintCells(); });
}

function paintCells() {
  const scroll = byId('matrix-scroll'), canvas = byId('cells');
  if (byId('matrix').hidden) return;
  const [width, height] = [scroll.clientWidth, scroll.clientHeight], scale = devicePixelRatio || 1, {size, head, top, rows, columns} = matrix;
  canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  canvas.style.width = width + 'px'; canvas.style.height = height + 'px'; canvas.style.marginBottom = -height + 'px';
  const context = canvas.getContext('2d'), style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(name).trim();
  context.setTransform(scale, 0, 0, scale, 0, 0);
  const fill = ['', colour('--cell-deny'), colour('--cell-some'), colour('--cell-every')], drop = colour('--drop'), text = colour('--text'), quiet = colour('--quiet');
  context.clearRect(0, 0, width, height);
  const [left, above] = [scroll.scrollLeft, scroll.scrollTop], gap = size > 6 ? 1 : size > 3 ? .5 : 0;
  const seen = (offset, extent, length) => [Math.max(0, Math.floor(offset / size)), Math.min(length, Math.ceil((offset + extent) / size))];
  const [firstRow, endRow] = seen(above, height - top, rows.length), [firstColumn, endColumn] = seen(left, width - head, columns.length);
  for (let row = firstRow; row < endRow; row++) {
    for (let column = firstColumn; column < endColumn; column++) {
      const [from, to] = [rows[row], columns[column]];
      if (!fitsFocus(from, to)) continue;
      const [x, y] = [head + column * size - left, top + row * size - above], outcome = outcomeOf(from, to);
      if (outcome !== NONE) { context.fillStyle = fill[outcome]; context.fillRect(x, y, size - gap, size - gap); }
      if (recorded.has(from * count + to) && recordedOf(from * count + to).length > 0) {
        context.fillStyle = drop;
        context.beginPath();
        context.arc(x + (size - gap) / 2, y + (size - gap) / 2, Math.max(1.6, size * .28), 0, 7);
        context.fill();
      }
    }
  }
  const mark = (row, column, line) => {
    context.strokeStyle = text; context.lineWidth = line;
    context.strokeRect(head + column * size - left - 1, top + row * size - above - 1, size - gap + 2, size - gap + 2);
  };
  if (state.pair) {
    const [row, column] = [rows.indexOf(state.pair[0]), columns.indexOf(state.pair[1])];
    if (row >= 0 && column >= 0) mark(row, column, 2);
  }
  if (document.activeElement === scroll && rows.length > 0 && columns.length > 0) {
    mark(Math.min(matrix.cursor[0], rows.length - 1), Math.min(matrix.cursor[1], columns.length - 1), 2);
    sayCell(matrix.cursor);
  }
  // Headings lie over the cells.
  context.fillStyle = colour('--back');
  context.fillRect(0, 0, width, top); context.fillRect(0, 0, head, height);
  const font = getComputedStyle(document.body).fontFamily;
  const isNamed = size >= NAMED, strip = matrix.strip;
  const cut = (name, room) => { let words = name; while (words.length > 1 && context.measureText(words === name ? words : words + '…').width > room) words = words.slice(0, -1); return words === name ? name : words + '…'; };
  context.textBaseline = 'middle';
  // Words along a row or a column: at a place across it, turned where that runs along the other way.
  const put = (words, x, y, isTurned, align) => {
    context.save();
    context.translate(x, y);
    if (isTurned) context.rotate(-Math.PI / 2);
    context.textAlign = align;
    context.fillText(words, 0, 0);
    context.restore();
  };
  const ends = [head + columns.length * size - left, top + rows.length * size - above];
  const along = (list, first, end, isRow) => {
    const start = isRow ? top : head, [before, extent] = isRow ? [above, height] : [left, width];
    const edgeOf = at => start + at * size - before;
    if (isNamed) {
      context.font = `${Math.min(12, size - 1)}px ${font}`;
      for (let at = first; at < end; at++) {
        const party = parties[list[at]], middle = edgeOf(at) + size / 2;
        context.fillStyle = list[at] === state.focus ? colour('--accent') : text;
        const words = cut(headName(party), start - strip - 10);
        if (isRow) put(words, head - 7, middle, false, 'right'); else put(words, middle, top - 7, true, 'left');
      }
    }
    // Namespaces: a line where one begins, and its name in the middle of what is seen of it.
    for (let at = 0; at < list.length;) {
      const group = groupOf(parties[list[at]]);
      let next = at;
      while (next < list.length && groupOf(parties[list[next]]) === group) next++;
      const [edge, far] = [Math.max(start, edgeOf(at)), Math.min(extent, edgeOf(next))];
      if (edgeOf(at) >= start - 1 && edgeOf(at) < extent) {
        context.strokeStyle = colour('--quiet'); context.globalAlpha = .4; context.lineWidth = 1;
        context.beginPath();
        if (isRow) { context.moveTo(4, edge - .5); context.lineTo(Math.min(width, ends[0]), edge - .5); } else { context.moveTo(edge - .5, 4); context.lineTo(edge - .5, Math.min(height, ends[1])); }
        context.stroke();
        context.globalAlpha = 1;
      }
      if (far - edge >= 12) {
        context.font = `600 11px ${font}`; context.fillStyle = quiet;
        const middle = (edge + far) / 2;
        // Beside names of workloads it runs along the strip; alone it reads like a name.
        if (isNamed) { const words = cut(groupName(group), far - edge - 6); if (isRow) put(words, 12, middle, true, 'center'); else put(words, middle, 12, false, 'center'); }
        else { const words = cut(groupName(group), start - 14); if (isRow) put(words, head - 7, middle, false, 'right'); else put(words, middle, top - 7, true, 'left'); }
      }
      at = next;
    }
  };
  context.save(); context.beginPath(); context.rect(0, top, width, height - top); context.clip(); along(rows, firstRow, endRow, true); context.restore();
  context.save(); context.beginPath(); context.rect(head, 0, width - head, height); context.clip(); along(columns, firstColumn, endColumn, false); context.restore();
  context.font = `11px ${font}`; context.fillStyle = quiet; context.textAlign = 'left';
  put('from ↓', 28, top - 9, false, 'left');
  put('to →', 28, top - 25, false, 'left');
}

function sayCell([row, column]) {
  const [from, to] = [matrix.rows[row], matrix.columns[column]];
  if (from !== undefined && to !== undefined) byId('matrix-says').textContent = pairWords(from, to);
}

const pairWords = (from, to) => {
  const cell = data.cells[pairs[from * count + to]], outcome = outcomeOf(from, to), ports = outcome === SOME && !shown.port ? ': ' + allPorts(cell) : '';
  const drops = recordedOf(from * count + to).reduce((sum, denial) => sum + denial.count, 0);
  return `${longName(parties[from])} → ${longName(parties[to])} — ${verdictWords(outcome)}${ports}${drops ? `, ${plural(drops, 'drop', 'drops')} recorded` : ''}`;
};

function showTip(cell, event) {
  const tip = byId('tip');
  if (!cell) return hideTip();
  const [row, column] = cell;
  tip.textContent = row < 0 ? 'to ' + longName(parties[matrix.columns[column]]) : column < 0 ? 'from ' + longName(parties[matrix.rows[row]]) : pairWords(matrix.rows[row], matrix.columns[column]);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + 'px';
  tip.style.top = Math.min(event.clientY + 16, innerHeight - box.height - 8) + 'px';
}

function hideTip() { byId('tip').hidden = true; }
