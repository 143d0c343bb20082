//! The plots as SVG: few shapes, in colours that are distinct on light and on dark backgrounds.

use std::fmt::Write as _;

use crate::{facts::Facts, latency::PERCENTILES, targets::Unit};

/// Readable on white and on black.
const TEXT: &str = "#7d8590";
const GRID: &str = "#7d859055";
const OWN: &str = "#2f9e44";
const OTHER: &str = "#8b949e";

/// An SVG document under construction.
struct Svg(String);

impl Svg {
    fn new(width: u32, height: u32, title: &str) -> Svg {
        let mut svg = Svg(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"{TEXT}\">\n<title>{title}</title>\n"
        ));
        svg.text(16.0, 24.0, "start", &format!("<tspan font-size=\"15\" font-weight=\"bold\">{title}</tspan>"));
        svg
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let _ = writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    fn coloured(&mut self, x: f64, y: f64, colour: &str, text: &str) {
        let _ = writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{text}</text>");
    }

    fn rule(&mut self, x1: f64, y1: f64, x2: f64, y2: f64) {
        let _ =
            writeln!(self.0, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{GRID}\"/>");
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        );
    }

    fn line(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = writeln!(
            self.0,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            points.join(" ")
        );
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Time to read one session, on a logarithmic axis; `None` if M1 was not measured.
pub fn reads(facts: &Facts) -> Option<String> {
    const STORES: [(&str, &str, bool); 7] = [
        ("m1.sss_ns", "memory:", true),
        ("m1.dashmap_ns", "dashmap", false),
        ("l1.sss_ns", "lmdb:", true),
        ("django.memory_read_ns", "memory: from Python", true),
        ("django.lmdb_read_ns", "lmdb: from Python", true),
        ("m9.redis_ns", "Redis, Unix socket", false),
        ("django.django_read_ns", "Django on SQLite", false),
    ];
    const MARKS: [(f64, &str); 5] = [(1e2, "0.1 µs"), (1e3, "1 µs"), (1e4, "10 µs"), (1e5, "100 µs"), (1e6, "1 ms")];
    facts.get("m1.dashmap_ns")?;
    let mut bars: Vec<(f64, &str, bool)> =
        STORES.iter().filter_map(|(fact, name, own)| Some((facts.get(fact)?, *name, *own))).collect();
    bars.sort_by(|a, b| a.0.total_cmp(&b.0));
    let left = 170.0;
    let right = 630.0;
    let top = 62.0;
    let bottom = top + 28.0 * bars.len() as f64;
    let x = |ns: f64| left + (right - left) * (ns.max(1e2).log10() - 2.0) / 4.0;
    let mut svg = Svg::new(720, bottom as u32 + 34, "Time to read one session of 256 bytes");
    svg.text(16.0, 44.0, "start", "logarithmic scale; libsss in green; shorter is better");
    for (ns, name) in MARKS {
        svg.rule(x(ns), top, x(ns), bottom);
        svg.text(x(ns), bottom + 18.0, "middle", name);
    }
    for (i, (ns, name, own)) in bars.into_iter().enumerate() {
        let y = top + 4.0 + 28.0 * i as f64;
        svg.text(left - 8.0, y + 15.0, "end", name);
        svg.bar(left, y, x(ns) - left, 20.0, if own { OWN } else { OTHER });
        svg.text(x(ns) + 8.0, y + 15.0, "start", &Unit::Us.show(ns / 1e3));
    }
    Some(svg.end())
}

/// Latency of a get by percentile while the expired sessions are swept; `None` if M14 was not
/// measured.
pub fn latency(facts: &Facts) -> Option<String> {
    const STORES: [(&str, &str, &str); 5] = [
        ("quiet", "libsss, no sweep", "#7d8590"),
        ("sss", "libsss", OWN),
        ("papaya", "papaya", "#9c6ade"),
        ("dashmap", "dashmap", "#e8590c"),
        ("locked", "hashbrown, one lock", "#1c7ed6"),
    ];
    const MARKS: [(f64, &str); 6] =
        [(0.1, "0.1 µs"), (1.0, "1 µs"), (10.0, "10 µs"), (100.0, "100 µs"), (1e3, "1 ms"), (1e4, "10 ms")];
    let (left, right, top, bottom) = (70.0, 560.0, 70.0, 350.0);
    let last = (PERCENTILES.len() - 1) as f64;
    let x = |i: usize| left + (right - left) * i as f64 / last;
    let y = |us: f64| bottom - (bottom - top) * (us.max(0.1).log10() + 1.0) / 7.0;

    let mut svg = Svg::new(720, 410, "Latency of a get while expired sessions are swept");
    svg.text(16.0, 44.0, "start", "by percentile of callers, one every 10 µs (corrected for coordinated omission)");
    for (us, name) in MARKS.into_iter().chain([(1e5, "100 ms"), (1e6, "1 s")]) {
        svg.rule(left, y(us), right, y(us));
        svg.text(left - 8.0, y(us) + 4.0, "end", name);
    }
    for (i, percentile) in PERCENTILES.iter().enumerate() {
        svg.rule(x(i), top, x(i), bottom);
        let name = if *percentile == 100.0 { "longest".into() } else { format!("{percentile}") };
        svg.text(x(i), bottom + 18.0 + 15.0 * (i % 2) as f64, "middle", &name);
    }
    svg.text((left + right) / 2.0, bottom + 54.0, "middle", "percentile");
    let mut labels: Vec<(f64, &str, &str)> = Vec::new();
    for (store, name, colour) in STORES {
        let points: Option<Vec<(f64, f64)>> = PERCENTILES
            .iter()
            .enumerate()
            .map(|(i, percentile)| Some((x(i), y(facts.get(&format!("m14.{store}.corrected.p{percentile}"))?))))
            .collect();
        let points = points?;
        labels.push((points[points.len() - 1].1, name, colour));
        svg.line(&points, colour, store == "quiet");
    }
    // Names beside the ends of the lines, moved apart where they would overlap.
    labels.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = top;
    for (at, name, colour) in labels {
        let at = f64::max(at + 4.0, free);
        svg.coloured(right + 8.0, at, colour, name);
        free = at + 16.0;
    }
    Some(svg.end())
}

/// Bytes per session beyond the payload; `None` if M10 was not measured.
pub fn memory(facts: &Facts) -> Option<String> {
    const STORES: [(&str, &str); 7] = [
        ("sss", "libsss"),
        ("lb", "hashbrown"),
        ("dashmap", "dashmap"),
        ("papaya", "papaya"),
        ("redis", "Redis"),
        ("memcached", "memcached"),
        ("moka", "moka"),
    ];
    facts.get("m10.sss_large")?;
    let mut bars: Vec<(&str, &str, f64)> = STORES
        .iter()
        .filter_map(|(store, name)| Some((*store, *name, facts.get(&format!("m10.{store}_large"))?)))
        .collect();
    bars.sort_by(|a, b| a.2.total_cmp(&b.2));
    let most = bars.iter().map(|bar| bar.2).fold(1.0, f64::max);
    let (left, width) = (110.0, 500.0);
    let mut svg = Svg::new(720, 64 + 28 * bars.len() as u32, "Memory per session beyond a 256 B payload");
    svg.text(16.0, 44.0, "start", "bytes; Redis and memcached with a tenth of the sessions of the others");
    for (i, (store, name, bytes)) in bars.into_iter().enumerate() {
        let y = 58.0 + 28.0 * i as f64;
        svg.text(left - 8.0, y + 15.0, "end", name);
        let length = width * bytes / most;
        svg.bar(left, y, length, 20.0, if store == "sss" { OWN } else { OTHER });
        svg.text(left + length + 8.0, y + 15.0, "start", &Unit::Bytes.show(bytes));
    }
    Some(svg.end())
}
