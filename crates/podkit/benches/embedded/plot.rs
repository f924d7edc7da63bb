//! Two plots as SVG: bars, and lines over the number of sessions, both with logarithmic axes.

use std::{fmt::Write, fs, path::Path};

/// A bar: what it is of, and how long it is in milliseconds.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
}

/// A line: what it is of, and milliseconds by the number of sessions.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(usize, f64)>,
}

const WIDTH: f64 = 720.0;
const LEFT: f64 = 220.0;
const RIGHT: f64 = 60.0;
const COLORS: [&str; 5] = ["#1f6feb", "#d29922", "#2da44e", "#cf222e", "#8250df"];

/// A logarithmic axis from one power of ten to another.
struct Axis {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::MAX, f64::min).log10().floor();
        let high = values
            .fold(f64::MIN, f64::max)
            .log10()
            .ceil()
            .max(low + 1.0);
        #[expect(clippy::cast_possible_truncation, reason = "exponents of milliseconds")]
        let (low, high) = (low as i32, high as i32);
        Self {
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        self.from + (value.log10() - low) / (high - low) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        (self.low..=self.high).map(|power| {
            let value = 10_f64.powi(power);
            (self.place(value), format!("{value}"))
        })
    }
}

fn document(height: f64, title: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"12\" y=\"22\" font-size=\"15\">{title}</text>{body}</svg>\n"
    )
}

/// Bars from the shortest to the longest.
pub(super) fn bars(path: &Path, title: &str, bars: &[Bar]) {
    let mut sorted: Vec<&Bar> = bars.iter().collect();
    sorted.sort_by(|a, b| a.value.total_cmp(&b.value));
    let values = bars.iter().map(|bar| bar.value);
    let axis = Axis::of(values, LEFT, WIDTH - RIGHT);
    let (mut body, mut y) = (String::new(), 40.0);
    for bar in sorted {
        let color = COLORS[usize::from(!bar.name.starts_with("podkit"))];
        let (end, text) = (axis.place(bar.value), y + 14.0);
        let _ = write!(
            body,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"18\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{text}\">{:.1}</text>",
            LEFT - 8.0,
            bar.name,
            end - LEFT,
            end + 6.0,
            bar.value,
        );
        y += 26.0;
    }
    for (x, label) in axis.ticks() {
        let _ = write!(
            body,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"34\" y2=\"{y}\" stroke=\"#ccc\" stroke-dasharray=\"2 3\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{label} ms</text>",
            y + 16.0
        );
    }
    fs::write(path, document(y + 30.0, title, &body)).unwrap();
}

/// Lines over the number of sessions.
pub(super) fn lines(path: &Path, title: &str, lines: &[Line]) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (bottom, top) = (330.0, 44.0);
    #[expect(clippy::cast_precision_loss, reason = "numbers of sessions")]
    let count = |number: usize| number as f64;
    let across = Axis::of(points().map(|&(number, _)| count(number)), 60.0, 470.0);
    let up = Axis::of(points().map(|&(_, value)| value), bottom, top);
    let mut body = String::new();
    for (x, label) in across.ticks() {
        let _ = write!(
            body,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{label}</text>",
            bottom + 18.0
        );
    }
    for (y, label) in up.ticks() {
        let _ = write!(
            body,
            "<line x1=\"60\" x2=\"470\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ccc\" stroke-dasharray=\"2 3\"/>\
             <text x=\"54\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{label} ms</text>",
            y + 4.0
        );
    }
    let mut labels = Vec::new();
    for (nth, line) in lines.iter().enumerate() {
        let color = COLORS[nth % COLORS.len()];
        let place = |&(number, value): &(usize, f64)| {
            format!("{:.1},{:.1}", across.place(count(number)), up.place(value))
        };
        let points: Vec<String> = line.points.iter().map(place).collect();
        let end = line
            .points
            .last()
            .map_or(top, |&(_, value)| up.place(value));
        let _ = write!(
            body,
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" "),
        );
        labels.push((end + 4.0, color, &line.name));
    }
    // Beside the ends of the lines, and not one over the other.
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::MIN;
    for (y, color, name) in labels {
        free = y.max(free);
        let _ = write!(
            body,
            "<text x=\"480\" y=\"{free:.1}\" fill=\"{color}\">{name}</text>"
        );
        free += 16.0;
    }
    let _ = write!(
        body,
        "<text x=\"265\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">sessions beside it</text>",
        bottom + 38.0
    );
    fs::write(path, document(bottom + 52.0, title, &body)).unwrap();
}
