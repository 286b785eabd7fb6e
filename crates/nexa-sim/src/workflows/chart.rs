//! Lines over sizes of clusters as SVG: a few panels beside each other, readable in light and dark, without fonts or
//! scripts.

use std::fmt::Write as _;

/// A panel: its title and its lines, each with its name and its values by size.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) lines: Vec<(&'static str, Vec<f64>)>,
}

/// The size of a panel, and of the space around what is drawn in it, in pixels.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 34.0;
/// Panels of a row.
const COLUMNS: usize = 2;
/// What is drawn of a value: from the best that one sees to where it is bad enough.
const LEAST: f64 = 0.5;
const MOST: f64 = 2.0;
const TICKS: [f64; 7] = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0];
const COLOURS: [&str; 6] = ["#999999", "#c9a227", "#333a45", "#8c6bb1", "#2f6fdb", "#3a9a5b"];

/// One picture of all panels. Sizes are apart by the same space each, since each is twice the one before.
pub(super) fn svg(sizes: &[usize], panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS.min(panels.len()) as f64, HEIGHT * rows as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#777\">\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = ((index % COLUMNS) as f64 * WIDTH, (index / COLUMNS) as f64 * HEIGHT);
        put(&mut out, format_args!("<g transform=\"translate({x} {y})\">\n"));
        draw(&mut out, sizes, panel);
        out += "</g>\n";
    }
    out + "</svg>\n"
}

fn draw(out: &mut String, sizes: &[usize], panel: &Panel) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x_of = |at: usize| LEFT + at as f64 * (right - LEFT) / (sizes.len().max(2) - 1) as f64;
    let y_of = |value: f64| bottom - (value.clamp(LEAST, MOST) - LEAST) / (MOST - LEAST) * (bottom - TOP);
    put(out, format_args!("<text x=\"{LEFT}\" y=\"16\" font-size=\"13\">{}</text>\n", panel.title));
    for tick in TICKS {
        let y = y_of(tick);
        put(out, format_args!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#888\" stroke-opacity=\"0.25\"/>"));
        put(out, format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">", LEFT - 6.0, y + 4.0));
        put(out, format_args!("{tick:.2}</text>\n"));
    }
    for (at, size) in sizes.iter().enumerate() {
        put(out, format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">", x_of(at), bottom + 15.0));
        put(out, format_args!("{size}</text>\n"));
    }
    put(out, format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">", (LEFT + right) / 2.0, HEIGHT - 4.0));
    *out += "nodes</text>\n";
    for (place, ((name, values), colour)) in panel.lines.iter().zip(COLOURS).enumerate() {
        let points: Vec<String> =
            values.iter().enumerate().map(|(at, value)| format!("{:.1},{:.1}", x_of(at), y_of(*value))).collect();
        put(out, format_args!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"", points.join(" ")));
        *out += " stroke-width=\"1.6\"/>\n";
        let y = TOP + 8.0 + 15.0 * place as f64;
        put(out, format_args!("<text x=\"{:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{name}</text>\n", right + 10.0));
    }
}

/// A string takes everything that is written to it.
fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_panel() {
        let panel = Panel { title: "t".to_owned(), lines: vec![("a", vec![0.1, 1.0, 9.0])] };
        let drawn = svg(&[2, 4, 8], &[panel]);
        let points = drawn.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
        assert_eq!(points, "40.0,196.0 170.0,140.0 300.0,28.0");
        assert_eq!(svg(&[2], &[]).matches("<g").count(), 0);
    }
}
