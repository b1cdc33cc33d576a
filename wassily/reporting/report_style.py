"""How a report looks: light and dark, on a phone and on a wide screen, in both directions."""

STYLE = """
:root{--page:#fbfbf9;--ink:#1c1d21;--quiet:#62656e;--line:#dcdcd6;--card:#fff;
--good:#17714a;--bad:#b3352b;--mark:#2f6fb5;--chroma:62%;--light:44%}
@media (prefers-color-scheme:dark){:root{--page:#15171b;--ink:#e8e8e4;--quiet:#9da1ab;
--line:#33363d;--card:#1d2026;--good:#63c795;--bad:#f08a7e;--mark:#7db4ee;--chroma:65%;--light:64%}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.5;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans Arabic",sans-serif}
main{max-width:66rem;margin:0 auto;padding:clamp(1.25rem,4vw,3rem) clamp(1rem,4vw,2rem) 4rem}
h1{font-size:clamp(1.6rem,5vw,2.3rem);line-height:1.15;margin:.1rem 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .9rem}
h3{font-size:.95rem;margin:0 0 .4rem}
p{margin:.4rem 0}
section{margin-top:2.6rem;padding-top:1.4rem;border-top:1px solid var(--line)}
.kicker,.quiet{color:var(--quiet);font-size:.88rem}
.kicker{margin:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:1rem}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.1rem}
.value{font-size:1.25rem;font-variant-numeric:tabular-nums;margin:.2rem 0}
.value strong{font-size:1.7rem;font-weight:650}
.arrow{color:var(--quiet)}
.change{display:flex;gap:.7rem;flex-wrap:wrap;font-size:.95rem;font-variant-numeric:tabular-nums}
.better b{color:var(--good)}.worse b{color:var(--bad)}.same b{color:var(--quiet)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1.6rem}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1.6rem;
align-items:center}
figure{margin:0}
.chart figcaption{font-size:.9rem;font-weight:600;margin-bottom:.3rem}
svg{width:100%;height:auto;display:block;overflow:visible}
svg text{fill:var(--quiet);font-size:11px;font-variant-numeric:tabular-nums}
svg .name{fill:var(--ink);font-size:12px;font-weight:600;paint-order:stroke;stroke:var(--page);
stroke-width:3px}
.grid{stroke:var(--line);stroke-width:1}
.axis{stroke:var(--quiet);stroke-width:1}
.line{fill:none;stroke:hsl(var(--hue) var(--chroma) var(--light));stroke-width:2;
stroke-linejoin:round}
.area{fill:hsl(var(--hue) var(--chroma) var(--light));opacity:.16}
.point{fill:hsl(var(--hue) var(--chroma) var(--light))}
.way{fill:none;stroke:var(--quiet);stroke-width:1.5;stroke-dasharray:3 3}
.cross{stroke:var(--mark);stroke-width:1;opacity:.45}
.dot{fill:var(--mark);stroke:var(--page);stroke-width:1.5}
.dot.base{fill:var(--page);stroke:var(--ink);stroke-width:2}
.dot.exported{stroke:var(--ink);stroke-width:2.5;r:6.5px}
.legend{list-style:none;margin:.5rem 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.15rem .9rem;
font-size:.8rem;color:var(--quiet)}
.key{display:inline-block;width:.8rem;height:.2rem;border-radius:1px;margin-inline-end:.35rem;
vertical-align:middle;background:hsl(var(--hue) var(--chroma) var(--light))}
article{margin-top:1.5rem}
.prompt{font-weight:600;width:fit-content;max-width:100%;overflow-wrap:anywhere;max-height:9rem;overflow:auto}
.strip{display:flex;gap:.7rem;overflow-x:auto;padding-bottom:.5rem}
.cell{flex:0 0 auto;width:clamp(7rem,21vw,10rem)}
.cell figcaption{font-size:.8rem;color:var(--quiet);margin-top:.25rem}
.cell.base{position:sticky;inset-inline-start:0;background:var(--page);padding-inline-end:.7rem;
border-inline-end:1px solid var(--line);width:calc(clamp(7rem,21vw,10rem) + .7rem)}
.cell.exported img{outline:3px solid var(--mark);outline-offset:-3px}
.drawn{width:100%;height:auto;display:block;border-radius:.35rem}
.drawn.small{image-rendering:pixelated}
.tag{color:var(--mark);font-weight:600}
dl{margin:0;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));
column-gap:2rem}
dl div{display:flex;justify-content:space-between;gap:1rem;padding:.35rem 0;
border-bottom:1px solid var(--line)}
dt{color:var(--quiet);flex:none}
dd{margin:0;text-align:end;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.warned dd{color:var(--bad);font-weight:600}
pre{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.8rem 1rem;
white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem;margin:0 0 1rem}
code{font-family:ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;font-size:.92em}
@media (min-width:48rem){.strip{flex-wrap:wrap;overflow:visible}.cell.base{position:static}}
@media print{.strip{flex-wrap:wrap;overflow:visible}}
"""
