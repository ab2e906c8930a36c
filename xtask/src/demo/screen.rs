//! What the demo looks like: bars that move on a terminal, plain lines elsewhere.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use super::{
    client::Tally,
    judge::{Outcome, Row, Verdict, share},
    scene::Description,
};

/// How many characters a bar has.
const BAR: usize = 32;

/// The standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Whether lines can be drawn over.
    live: bool,
    colour: bool,
    /// How many lines the next drawing replaces.
    drawn: usize,
}

/// How far a step is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The step, counted from one, of how many.
    pub(crate) step: usize,
    pub(crate) steps: usize,
    pub(crate) leaves: [&'static str; 2],
    pub(crate) weights: [u64; 2],
    /// How many requests will be made.
    pub(crate) requests: u64,
    /// How long after the edit the weights were in force; `None` while they are not.
    pub(crate) in_force_after: Option<Duration>,
    pub(crate) tally: Tally,
}

/// A colour or weight of text.
#[derive(Clone, Copy, Debug)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
    /// One for each leaf.
    Leaf(usize),
}

impl Screen {
    /// Finds out what the standard output is.
    pub(crate) fn new() -> Self {
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let live = io::stdout().is_terminal() && !dumb;
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            live,
            colour: live && !no_colour,
            drawn: 0,
        }
    }

    /// Whether somebody watches.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Prints what is on the stage.
    pub(crate) fn introduce(&mut self, description: &Description) -> io::Result<()> {
        let width = description.parts.iter().map(|(name, _)| name.len()).max();
        let width = width.unwrap_or(0);
        let mut lines = vec![self.paint(Style::Bold, description.title), String::new()];
        for (name, text) in &description.parts {
            lines.push(format!("  {name:width$}  {}", self.paint(Style::Dim, text)));
        }
        lines.push(String::new());
        self.print(&lines)
    }

    /// Shows how far a step is, where that can be drawn over.
    pub(crate) fn draw(&mut self, progress: &Progress) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        let lines = self.block(progress, None);
        self.replace(&lines)
    }

    /// Shows how a step went.
    pub(crate) fn finish(&mut self, progress: &Progress, rows: &[Row; 2]) -> io::Result<()> {
        if !self.live {
            return self.print(&[plain_line(progress, rows)]);
        }
        let mut lines = self.block(progress, Some(rows));
        lines.push(String::new());
        self.replace(&lines)?;
        self.drawn = 0;
        Ok(())
    }

    /// Prints the table of everything.
    pub(crate) fn summarise(&mut self, rows: &[Row]) -> io::Result<()> {
        let width = rows.iter().map(|row| row.leaf.len()).max().unwrap_or(0);
        let head = format!(
            "step  weights  {:width$}  configured  observed    share  allowed error  verdict",
            "leaf"
        );
        let mut lines = Vec::new();
        if !self.live {
            lines.push(String::new());
        }
        lines.push(self.paint(Style::Bold, &head));
        for row in rows {
            let first = row.index == 0;
            let step = if first {
                row.step.to_string()
            } else {
                String::new()
            };
            let weights = if first {
                weights(row.weights)
            } else {
                String::new()
            };
            let allowed = if row.allowed == 0.0 {
                "exact".to_owned()
            } else {
                format!("± {:.1}", row.allowed)
            };
            let verdict = match row.verdict {
                Verdict::Good => self.paint(Style::Green, "ok"),
                Verdict::Off => self.paint(Style::Red, "OFF"),
                Verdict::Failures(count) => {
                    self.paint(Style::Red, &format!("{} FAILED", grouped(count)))
                }
            };
            lines.push(format!(
                "{step:>4}  {weights:>7}  {:width$}  {:>10}  {:>8}  {:>7}  {allowed:>13}  {verdict}",
                row.leaf,
                percent(row.configured),
                grouped(row.observed),
                percent(share(row.observed, row.requests)),
            ));
        }
        lines.push(String::new());
        lines.push(self.verdict(rows));
        self.print(&lines)
    }

    /// Prints lines that stay.
    pub(crate) fn print(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = lines.join("\n");
        text.push('\n');
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    /// A heading in the style of this screen.
    pub(crate) fn heading(&self, text: &str) -> String {
        self.paint(Style::Bold, text)
    }

    /// An explanation in the style of this screen.
    pub(crate) fn aside(&self, text: &str) -> String {
        self.paint(Style::Dim, text)
    }

    /// The last line.
    fn verdict(&self, rows: &[Row]) -> String {
        let outcome = Outcome::of(rows);
        let style = if outcome.is_good() {
            Style::Green
        } else {
            Style::Red
        };
        self.paint(style, &format!("{outcome}."))
    }

    /// The lines of a step.
    fn block(&self, progress: &Progress, rows: Option<&[Row; 2]>) -> Vec<String> {
        let made = progress.tally.requests();
        let title = format!(
            "Step {} of {}   {:<6}",
            progress.step,
            progress.steps,
            weights(progress.weights)
        );
        let state = match progress.in_force_after {
            None => "edited, waiting for the agent".to_owned(),
            Some(time) => format!(
                "in force {} after the edit   {} of {} requests",
                milliseconds(time),
                grouped(made),
                grouped(progress.requests)
            ),
        };
        let mut lines = vec![format!(
            "{}   {}",
            self.paint(Style::Bold, &title),
            self.paint(Style::Dim, &state)
        )];
        let width = progress
            .leaves
            .iter()
            .map(|leaf| leaf.len())
            .max()
            .unwrap_or(0);
        let total: u64 = progress.weights.iter().sum();
        for (index, leaf) in progress.leaves.into_iter().enumerate() {
            let configured = share(progress.weights[index], total);
            let count = progress.tally.answers_of(leaf);
            let observed = share(count, made);
            let mark = match rows.map(|rows| rows[index].verdict) {
                None => String::new(),
                Some(Verdict::Good) => self.paint(Style::Green, " ✓"),
                Some(_) => self.paint(Style::Red, " ✗"),
            };
            lines.push(format!(
                "  {leaf:width$}  configured {:>7}  {}",
                percent(configured),
                self.paint(Style::Dim, &bar(configured)),
            ));
            lines.push(format!(
                "  {:width$}  observed   {:>7}  {} {:>6}{mark}",
                "",
                percent(observed),
                self.paint(Style::Leaf(index), &bar(observed)),
                grouped(count),
            ));
        }
        for (error, count) in progress.tally.errors() {
            let text = format!("  {} failed: {error}", grouped(count));
            lines.push(self.paint(Style::Red, &text));
        }
        lines
    }

    /// Draws lines over those drawn last.
    fn replace(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::new();
        if self.drawn > 0 {
            text += &format!("\x1b[{}A", self.drawn);
        }
        // Too narrow a terminal shall cut lines off rather than break them, or they could not be
        // drawn over.
        text += "\r\x1b[?7l";
        for line in lines {
            text += line;
            text += "\x1b[K\n";
        }
        text += "\x1b[?7h\x1b[J";
        self.drawn = lines.len();
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Green => "32",
            Style::Red => "31",
            Style::Leaf(0) => "36",
            Style::Leaf(_) => "35",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A step in one line, for logs.
fn plain_line(progress: &Progress, rows: &[Row; 2]) -> String {
    let mut line = format!(
        "step {} of {}: {} in force after {};",
        progress.step,
        progress.steps,
        weights(progress.weights),
        milliseconds(progress.in_force_after.unwrap_or_default()),
    );
    for row in rows {
        let comma = if row.index == 0 { "" } else { "," };
        line += &format!(
            "{comma} {} {} of {} ({}, configured {})",
            row.leaf,
            grouped(row.observed),
            grouped(row.requests),
            percent(share(row.observed, row.requests)),
            percent(row.configured),
        );
    }
    for (error, count) in progress.tally.errors() {
        line += &format!("; {} failed: {error}", grouped(count));
    }
    line
}

/// A bar that is full at 1.
fn bar(share: f64) -> String {
    // An eighth of a character is as fine as it gets.
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let (full, part) = (eighths / 8, PARTS[eighths % 8]);
    let rest = BAR - full - usize::from(!part.is_empty());
    format!("{}{part}{}", "█".repeat(full), "·".repeat(rest))
}

fn weights([one, two]: [u64; 2]) -> String {
    format!("{one}/{two}")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis().max(1))
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_the_share_and_all_of_one_width() {
        for (share, full) in [(0.0, 0), (0.5, 16), (0.9, 28), (1.0, 32)] {
            let bar = bar(share);
            assert_eq!(bar.chars().count(), BAR, "{bar}");
            assert_eq!(bar.matches('█').count(), full, "{bar}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn without_a_terminal_there_is_nothing_to_draw_over_and_no_colour() {
        let screen = Screen {
            live: false,
            colour: false,
            drawn: 0,
        };
        assert_eq!(screen.paint(Style::Red, "text"), "text");
        let screen = Screen {
            colour: true,
            ..screen
        };
        assert_eq!(screen.paint(Style::Red, "text"), "\x1b[31mtext\x1b[0m");
    }
}
