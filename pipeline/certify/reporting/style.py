"""The style sheet of report.html: no web fonts, readable on paper and on a phone."""

STYLE = """\
:root { --ink: #1f2937; --soft: #6b7280; --line: #e5e7eb; --accent: #1f5fa8; }
body { margin: 0; background: #f6f7f9; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 2.5rem 2rem 4rem; background: #fff; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; }
.kind { color: var(--accent); font-weight: 600; letter-spacing: .02em; margin: 0 0 .2rem; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.5rem 0; }
.card { flex: 1 1 9rem; border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
.card .label, .card .note { color: var(--soft); font-size: .82rem; }
.card .value { font-size: 1.6rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.card:first-child .value { color: var(--soft); }
.card .value { color: var(--accent); }
figure { margin: 1rem 0; text-align: center; }
figure img { width: 100%; max-width: 46rem; height: auto; }
.claim { border-left: 3px solid var(--accent); padding: .2rem 0 .2rem .9rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.numeric td:first-child { min-width: 8.5rem; overflow-wrap: anywhere; }
.numeric th:not(:first-child), .numeric td:not(:first-child) { text-align: right; }
.code td:last-child, pre, code { font-family: ui-monospace, Menlo, Consolas, monospace; }
.code td:last-child { font-size: .78rem; overflow-wrap: anywhere; }
pre { background: #f3f4f6; border-radius: .4rem; padding: .8rem 1rem; overflow-x: auto;
  font-size: .85rem; }
h3 { font-size: .95rem; margin: 1.3rem 0 .5rem; }
.small { color: var(--soft); font-size: .78rem; }
.gallery { display: flex; flex-wrap: wrap; gap: .9rem .8rem; }
.shot { width: 112px; font-size: .78rem; line-height: 1.3; overflow-wrap: anywhere; }
.shot img { display: block; object-fit: contain; background: #111; margin-bottom: .3rem;
  border-radius: .2rem; }
.shot img.enlarged { image-rendering: pixelated; }
.shot div:nth-child(2) { font-weight: 600; }
.matrix { width: auto; font-size: .8rem; }
.matrix td { text-align: center; min-width: 1.5rem; padding: .3rem .25rem; border: 1px solid #fff; }
.matrix td.certified { background: #dbe7f4; font-weight: 600; }
.matrix th { white-space: nowrap; border: 0; padding: .2rem .6rem .2rem 0; text-align: right;
  max-width: 14rem; overflow: hidden; text-overflow: ellipsis; }
.matrix th.slanted { vertical-align: bottom; padding: 0 0 .3rem; text-align: center; }
.slanted span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 12rem;
  overflow: hidden; text-overflow: ellipsis; }
summary { cursor: pointer; color: var(--soft); }
@media print { body { background: #fff; } main { max-width: none; padding: 0; } }
"""
