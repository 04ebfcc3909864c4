// Says what is under the pointer, or where the arrow keys are. The numbers, and where
// they lie, are those of the table below each chart.
'use strict';
for (const chart of document.querySelectorAll('.chart')) {
  const area = chart.querySelector('.area'), cross = chart.querySelector('.cross'), read = chart.querySelector('.read');
  const heads = [...chart.querySelectorAll('thead th')].slice(1);
  let rows = null, at = -1;
  const load = () => rows ??= [...chart.querySelectorAll('tbody tr')].map(tr => ({
    x: +tr.dataset.x, name: tr.firstElementChild.textContent, cells: [...tr.querySelectorAll('td')],
  }));
  const show = i => {
    at = Math.min(Math.max(i, 0), load().length - 1);
    const row = rows[at], says = [row.name];
    cross.style.left = 100 * row.x + '%';
    cross.replaceChildren();
    row.cells.forEach((cell, k) => {
      if (cell.dataset.y === undefined) return;
      says.push(heads[k].textContent + ' ' + cell.textContent);
      const dot = document.createElement('i');
      dot.className = heads[k].dataset.class;
      dot.style.top = 100 * (1 - cell.dataset.y) + '%';
      cross.append(dot);
    });
    cross.hidden = false;
    read.textContent = says.join(' \u00b7 ');
  };
  const hide = () => { cross.hidden = true; read.textContent = ''; at = -1; };
  area.addEventListener('pointermove', event => {
    const box = area.getBoundingClientRect(), x = (event.clientX - box.left) / box.width;
    let best = 0;
    load().forEach((row, i) => { if (Math.abs(row.x - x) < Math.abs(rows[best].x - x)) best = i; });
    show(best);
  });
  area.addEventListener('pointerleave', hide);
  area.addEventListener('blur', hide);
  area.addEventListener('keydown', event => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(at < 0 && Math.abs(step) < 1e9 ? 0 : at + step);
  });
}
