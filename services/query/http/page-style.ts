/** The style of the page at `/`: system fonts, light and dark by the reader's setting, no other request. */
export const STYLE = `
:root { color-scheme: light dark; --line: light-dark(#dde3ea, #2f3844); --dim: light-dark(#5a6675, #93a1b3);
--panel: light-dark(#f6f8fa, #1b222b); --accent: light-dark(#0b57d0, #8ab4f8); }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 82rem; padding: 0 1rem;
background: light-dark(#fff, #12171d); }
header { display: flex; align-items: baseline; gap: 1rem; flex-wrap: wrap; margin-bottom: 1rem; }
h1 { font-size: 1.4rem; margin: 0; letter-spacing: -.01em; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
p, small { color: var(--dim); margin: 0; } nav { margin-left: auto; display: flex; gap: 1rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .75rem; }
.facts div { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.facts b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--dim); font-weight: 500; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
.n { font-variant-numeric: tabular-nums; white-space: nowrap; } code { font-size: .85em; }
details { margin-bottom: .8rem; } summary { cursor: pointer; } summary code { color: var(--dim); }
.error { color: light-dark(#b3261e, #ff8a80); }
`;
