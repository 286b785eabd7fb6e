//! Line charts as SVG, for reports: a few panels beside each other, readable in light and dark, without fonts or scripts.

use std::fmt::Write as _;

/// A chart.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    /// What is shown, with the unit.
    pub title: String,
    /// What runs to the right, with the unit.
    pub across: String,
    /// The lines, at most as many as there are colours.
    pub lines: Vec<Line>,
    /// Moments to point at.
    pub marks: Vec<(f64, String)>,
}

/// A line of a chart.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// The size of a panel, and of the space around what is drawn in it, in pixels.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 40.0;
/// Panels of a row.
const COLUMNS: usize = 2;
/// Points of a line that are drawn; of more every so many.
const POINTS_MAX: usize = 400;
/// Ticks of an axis, about.
const TICKS: f64 = 5.0;
/// Lines of a panel, at most.
pub const LINES_MAX: usize = COLOURS.len();
const COLOURS: [&str; 6] = ["#2f6fdb", "#d9672e", "#3a9a5b", "#8a4fc4", "#c2a01c", "#23a3a8"];

/// One picture of all panels.
pub fn svg(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS.min(panels.len()) as f64, HEIGHT * rows as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#777\">\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = ((index % COLUMNS) as f64 * WIDTH, (index / COLUMNS) as f64 * HEIGHT);
        put(&mut out, format_args!("<g transform=\"translate({x} {y})\">\n"));
        panel.draw(&mut out);
        out += "</g>\n";
    }
    out + "</svg>\n"
}

/// A string takes everything that is written to it.
fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(what);
}

impl Panel {
    fn draw(&self, out: &mut String) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let across = Axis::of(points().map(|(x, _)| *x));
        let up = Axis::of(points().map(|(_, y)| *y));
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let x_of = |x: f64| LEFT + across.share(x) * (right - LEFT);
        let y_of = |y: f64| bottom - up.share(y) * (bottom - TOP);
        put(out, format_args!("<text x=\"{LEFT}\" y=\"16\" font-size=\"13\">{}</text>\n", escaped(&self.title)));
        for tick in up.ticks() {
            let y = y_of(tick);
            put(out, format_args!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#888\" stroke-opacity=\"0.25\"/>"));
            put(out, format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">", LEFT - 6.0, y + 4.0));
            put(out, format_args!("{}</text>\n", up.written(tick)));
        }
        for tick in across.ticks() {
            let (x, y) = (x_of(tick), bottom + 15.0);
            put(out, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">"));
            put(out, format_args!("{}</text>\n", across.written(tick)));
        }
        let (x, y) = ((LEFT + right) / 2.0, HEIGHT - 8.0);
        put(out, format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{}</text>\n", escaped(&self.across)));
        for (x, what) in &self.marks {
            let x = x_of(*x);
            put(out, format_args!("<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#c33\" stroke-dasharray=\"3 3\"/>"));
            put(out, format_args!("<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#c33\">", x + 3.0, TOP + 10.0));
            put(out, format_args!("{}</text>\n", escaped(what)));
        }
        let mut legend = LEFT;
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            let every = line.points.len().div_ceil(POINTS_MAX).max(1);
            let last = line.points.last().filter(|_| every > 1);
            let path: Vec<String> = line
                .points
                .iter()
                .step_by(every)
                .chain(last)
                .map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y)))
                .collect();
            put(
                out,
                format_args!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>\n",
                    path.join(" ")
                ),
            );
            if self.lines.len() > 1 {
                put(
                    out,
                    format_args!("<text x=\"{legend}\" y=\"32\" fill=\"{colour}\">{}</text>\n", escaped(&line.name)),
                );
                legend += 14.0 + 6.5 * line.name.chars().count() as f64;
            }
        }
    }
}

/// An axis from zero to a round number.
struct Axis {
    end: f64,
    step: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        Self { end: (most / step).ceil() * step, step }
    }

    fn share(&self, value: f64) -> f64 {
        (value / self.end).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (step, count) = (self.step, (self.end / self.step).round() as u32);
        (0..=count).map(move |tick| f64::from(tick) * step)
    }

    /// A number with as many digits as the steps need.
    fn written(&self, value: f64) -> String {
        match (value, self.step) {
            (value, step) if value >= 10_000.0 && step >= 1_000.0 => format!("{} k", value / 1e3),
            (value, step) if step >= 1.0 => format!("{value:.0}"),
            (value, step) => format!("{value:.*}", (-step.log10().floor()) as usize),
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers_above_everything() {
        let written = |most: f64| {
            let axis = Axis::of([0.0, most].into_iter());
            axis.ticks().map(|tick| axis.written(tick)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(written(9_800.0), "0 2000 4000 6000 8000 10 k");
        assert_eq!(written(0.37), "0.0 0.1 0.2 0.3 0.4");
        assert_eq!(written(31.0), "0 10 20 30 40");
        assert_eq!(written(0.0), "0.0 0.2 0.4 0.6 0.8 1.0");
    }

    #[test]
    fn a_long_line_is_thinned_and_keeps_its_ends_and_nothing_leaves_its_panel() {
        let points = (0..100_000).map(|x| (f64::from(x), f64::from(x % 977))).collect();
        let line = Line { name: "a < b".to_owned(), points };
        let panel = Panel { title: "t & u".to_owned(), lines: vec![line.clone(), line], ..Panel::default() };
        let drawn = svg(&[panel]);
        assert!(drawn.contains("t &amp; u") && drawn.contains("a &lt; b") && drawn.len() < 30_000, "{}", drawn.len());
        let points = drawn.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
        let points: Vec<(f64, f64)> = points
            .split(' ')
            .map(|point| point.split_once(',').expect("two numbers"))
            .map(|(x, y)| (x.parse().expect("a number"), y.parse().expect("a number")))
            .collect();
        assert!(points.len() <= POINTS_MAX + 1);
        assert!((points[0].0 - LEFT).abs() < 0.1 && (points[points.len() - 1].0 - (WIDTH - RIGHT)).abs() < 0.1);
        assert!(points.iter().all(|(_, y)| (TOP..=HEIGHT - BOTTOM).contains(y)));
    }
}
