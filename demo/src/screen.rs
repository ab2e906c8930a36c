//! What the demo looks like: bars that move on a terminal, plain lines elsewhere, and a table at the
//! end.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::mem;
use std::time::Duration;

use crate::evaluate::{Outcome, Row, Verdict};

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
    /// How many steps there are.
    pub(crate) steps: usize,
    /// What makes the change, to be put after "after".
    pub(crate) change_by: &'static str,
    /// The command that makes it, if one does.
    pub(crate) command: Option<String>,
    /// How many requests will be made, in all places.
    pub(crate) requests: u64,
    /// How long after the change the weights were programmed; `None` while they are not.
    pub(crate) programmed_after: Option<Duration>,
    /// What went wrong, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What was counted so far; never empty.
    pub(crate) rows: Vec<Row>,
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

impl Drop for Screen {
    fn drop(&mut self) {
        // There may be no terminal any more.
        let _ = self.leave();
    }
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

    /// Prints what is going to be shown.
    pub(crate) fn title(&mut self, title: &str) -> io::Result<()> {
        let title = self.paint(Style::Bold, title);
        self.print(&[title, String::new()])
    }

    /// Prints lines of a name and an explanation, in two columns.
    pub(crate) fn explain(&mut self, width: usize, lines: &[(String, String)]) -> io::Result<()> {
        let line = |(name, text): &(String, String)| {
            format!("  {name:width$}  {}", self.paint(Style::Dim, text))
        };
        let lines: Vec<_> = lines.iter().map(line).collect();
        self.print(&lines)
    }

    /// Prints commands to go on with, each below what it does.
    pub(crate) fn suggest(&mut self, title: &str, entries: &[(String, String)]) -> io::Result<()> {
        let mut lines = vec![String::new(), self.paint(Style::Bold, title)];
        for (what, command) in entries {
            lines.push(format!(
                "  {}",
                self.paint(Style::Dim, &format!("# {what}"))
            ));
            lines.push(format!("  {command}"));
        }
        self.print(&lines)
    }

    /// Shows how far a step is, where that can be drawn over.
    pub(crate) fn draw(&mut self, progress: &Progress) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        let lines = self.step(progress, false);
        self.replace(&lines)
    }

    /// Shows how a step went.
    pub(crate) fn finish(&mut self, progress: &Progress) -> io::Result<()> {
        let mut lines = self.step(progress, true);
        lines.push(String::new());
        if !self.live {
            return self.print(&lines);
        }
        self.replace(&lines)?;
        self.drawn = 0;
        Ok(())
    }

    /// Prints lines that stay.
    pub(crate) fn print(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = lines.join("\n");
        text.push('\n');
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    /// The lines of a step.
    fn step(&self, progress: &Progress, is_over: bool) -> Vec<String> {
        let rows = &progress.rows;
        let first = &rows[0];
        let made = Outcome::of(rows).requests;
        let state = match progress.programmed_after {
            None => format!("after {}, not programmed yet", progress.change_by),
            Some(time) => format!(
                "programmed {} ms after {}   {} of {} requests",
                time.as_millis().max(1),
                progress.change_by,
                grouped(made),
                grouped(progress.requests)
            ),
        };
        let title = format!(
            "Step {} of {}   {:<6}",
            first.step,
            progress.steps,
            weights(first.weights)
        );
        let (title, state) = (
            self.paint(Style::Bold, &title),
            self.paint(Style::Dim, &state),
        );
        let mut lines = vec![format!("{title}   {state}")];
        lines.extend(
            progress
                .command
                .iter()
                .map(|command| format!("  {command}")),
        );
        let width = widest(rows, |row| row.leaf.len());
        let mut above = None;
        for row in rows {
            if above.replace(row.index) != Some(row.index) {
                lines.push(format!(
                    "  {:width$}  configured {:>7}  {}",
                    row.leaf,
                    percent(row.configured),
                    self.paint(Style::Dim, &bar(row.configured)),
                ));
            }
            let mark = match row.verdict {
                _ if !is_over => String::new(),
                Verdict::Good => self.paint(Style::Green, " ✓"),
                _ => self.paint(Style::Red, " ✗"),
            };
            lines.push(format!(
                "  {:>width$}  observed   {:>7}  {} {:>6}{mark}",
                row.place,
                percent(row.share()),
                self.paint(Style::Leaf(row.index), &bar(row.share())),
                grouped(row.observed),
            ));
        }
        for (error, count) in &progress.errors {
            let text = format!("  {} failed: {error}", grouped(*count));
            lines.push(self.paint(Style::Red, &text));
        }
        lines
    }

    /// Prints the table of everything.
    pub(crate) fn summarise(&mut self, rows: &[Row]) -> io::Result<()> {
        let outcome = Outcome::of(rows);
        let style = match outcome.is_good() {
            true => Style::Green,
            false => Style::Red,
        };
        let mut lines = self.table(rows);
        lines.push(String::new());
        lines.push(self.paint(style, &format!("{outcome}.")));
        self.print(&lines)
    }

    /// A heading, and a line for each row. What is the same as in the line above is left out.
    fn table(&self, rows: &[Row]) -> Vec<String> {
        let leaf_width = widest(rows, |row| row.leaf.len());
        let place_width = widest(rows, |row| row.place.len());
        // Where there is only one place there is no column for it.
        let place = |text: &str| match place_width {
            0 => String::new(),
            width => format!("{text:width$}  "),
        };
        let head = format!(
            "step  weights  {:leaf_width$}  {}configured  observed    share  allowed error  verdict",
            "leaf",
            place("node")
        );
        let mut lines = vec![self.paint(Style::Bold, &head)];
        let (mut step_above, mut leaf_above) = (None, None);
        for row in rows {
            let is_new_step = step_above.replace(row.step) != Some(row.step);
            let is_new_leaf = leaf_above.replace(row.leaf) != Some(row.leaf) || is_new_step;
            let (step, weights) = match is_new_step {
                true => (row.step.to_string(), weights(row.weights)),
                false => Default::default(),
            };
            let allowed = match row.allowed {
                0.0 => "exact".to_owned(),
                allowed => format!("± {allowed:.1}"),
            };
            let verdict = match row.verdict {
                Verdict::Good => self.paint(Style::Green, "ok"),
                Verdict::Off => self.paint(Style::Red, "OFF"),
                Verdict::Failures(count) => {
                    self.paint(Style::Red, &format!("{} FAILED", grouped(count)))
                }
            };
            lines.push(format!(
                "{step:>4}  {weights:>7}  {:leaf_width$}  {}{:>10}  {:>8}  {:>7}  {allowed:>13}  {verdict}",
                if is_new_leaf { row.leaf } else { "" },
                place(&row.place),
                percent(row.configured),
                grouped(row.observed),
                percent(row.share()),
            ));
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

    /// Ends a picture that was being drawn. Ctrl-C has the terminal throw away what was on its way
    /// to it, and so perhaps the end of a colour, and that lines may be broken again.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        if mem::take(&mut self.drawn) == 0 {
            return Ok(());
        }
        let mut output = io::stdout().lock();
        output.write_all(b"\x1b[0m\x1b[?7h\n")?;
        output.flush()
    }

    /// Text in a style, if there are any.
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

fn widest(rows: &[Row], width: impl Fn(&Row) -> usize) -> usize {
    rows.iter().map(width).max().unwrap_or(0)
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
    use crate::evaluate::tests::rows;

    /// One for logs.
    const PLAIN: Screen = Screen {
        live: false,
        colour: false,
        drawn: 0,
    };

    #[test]
    fn without_a_terminal_there_is_no_colour() {
        assert_eq!(PLAIN.paint(Style::Red, "text"), "text");
        let screen = Screen {
            colour: true,
            ..PLAIN
        };
        assert_eq!(screen.paint(Style::Red, "text"), "\x1b[31mtext\x1b[0m");
    }

    #[test]
    fn a_step_shows_each_node_both_and_what_failed() {
        let progress = Progress {
            steps: 3,
            change_by: "kubectl",
            command: Some("kubectl apply -f step.yaml".to_owned()),
            requests: 6,
            programmed_after: Some(Duration::from_millis(6)),
            errors: [("refused".to_owned(), 2)].into(),
            rows: rows([50, 50], &[("node-1", [1, 1]), ("node-2", [1, 1])], 1),
        };
        let lines = PLAIN.step(&progress, true);
        let expected = [
            "Step 1 of 3   50/50    programmed 6 ms after kubectl   6 of 6 requests",
            "  kubectl apply -f step.yaml",
            "  shop-v1  configured  50.0 %",
            "   node-1  observed    33.3 %",
            "   node-2  observed    33.3 %",
            "     both  observed    33.3 %",
            "  shop-v2  configured  50.0 %",
            "   node-1  observed    33.3 %",
            "   node-2  observed    33.3 %",
            "     both  observed    33.3 %",
            "  2 failed: refused",
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, start) in lines.iter().zip(expected) {
            assert!(line.starts_with(start), "{line}");
        }
    }

    #[test]
    fn a_single_place_has_no_column() {
        assert_eq!(
            PLAIN.table(&rows([50, 50], &[("", [5, 5])], 0)).join("\n"),
            "\
step  weights  leaf     configured  observed    share  allowed error  verdict
   1    50/50  shop-v1      50.0 %         5   50.0 %          exact  ok
               shop-v2      50.0 %         5   50.0 %          exact  ok"
        );
    }

    #[test]
    fn nodes_have_a_column_and_a_line_each() {
        let rows = rows([50, 50], &[("node-1", [5, 5]), ("node-2", [6, 4])], 0);
        assert_eq!(
            PLAIN.table(&rows).join("\n"),
            "\
step  weights  leaf     node    configured  observed    share  allowed error  verdict
   1    50/50  shop-v1  node-1      50.0 %         5   50.0 %          exact  ok
                        node-2      50.0 %         6   60.0 %          exact  OFF
                        both        50.0 %        11   55.0 %          exact  OFF
               shop-v2  node-1      50.0 %         5   50.0 %          exact  ok
                        node-2      50.0 %         4   40.0 %          exact  OFF
                        both        50.0 %         9   45.0 %          exact  OFF"
        );
    }

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
}
