//! What the demo looks like: bars that move on a terminal, plain lines elsewhere.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::mem;
use std::time::Duration;

use super::client::Tally;
use super::judge::{Place, Row, Verdict, share};
use super::scene::Description;
use super::text::{bar, grouped, milliseconds, percent, weights};

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
    pub(crate) wording: Wording,
    /// The command that makes the change, if one does.
    pub(crate) command: Option<String>,
    pub(crate) leaves: [&'static str; 2],
    pub(crate) weights: [u64; 2],
    /// How many requests will be made, in all places.
    pub(crate) requests: u64,
    /// How long after the change the weights were programmed; `None` while they are not.
    pub(crate) programmed_after: Option<Duration>,
    /// What each place has counted.
    pub(crate) tallies: Vec<(Place, Tally)>,
}

/// How changes of the TrafficSplit are spoken of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wording {
    /// While one is not programmed.
    pub(crate) changed: &'static str,
    /// What it was, to be put after "after".
    pub(crate) change: &'static str,
}

impl Progress {
    /// What was counted, and together if there are several places.
    fn counts(&self) -> Vec<(Place, Tally)> {
        let mut counts = self.tallies.clone();
        if counts.len() > 1 {
            counts.push((Place::Both, Tally::sum(&self.tallies)));
        }
        counts
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There may be no terminal any more.
        let _ = self.leave();
    }
}

/// A colour or weight of text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
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

    /// One for logs.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self {
            live: false,
            colour: false,
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
    pub(crate) fn finish(&mut self, progress: &Progress, rows: &[Row]) -> io::Result<()> {
        if !self.live {
            return self.print(&plain_lines(progress, rows));
        }
        let mut lines = self.block(progress, Some(rows));
        lines.push(String::new());
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

    /// A heading in the style of this screen.
    pub(crate) fn heading(&self, text: &str) -> String {
        self.paint(Style::Bold, text)
    }

    /// An explanation in the style of this screen.
    pub(crate) fn aside(&self, text: &str) -> String {
        self.paint(Style::Dim, text)
    }

    /// The lines of a step.
    fn block(&self, progress: &Progress, rows: Option<&[Row]>) -> Vec<String> {
        let counts = progress.counts();
        let all = Tally::sum(&progress.tallies);
        let title = format!(
            "Step {} of {}   {:<6}",
            progress.step,
            progress.steps,
            weights(progress.weights)
        );
        let state = match progress.programmed_after {
            None => progress.wording.changed.to_owned(),
            Some(time) => format!(
                "programmed {} after {}   {} of {} requests",
                milliseconds(time),
                progress.wording.change,
                grouped(all.requests()),
                grouped(progress.requests)
            ),
        };
        let mut lines = vec![format!(
            "{}   {}",
            self.paint(Style::Bold, &title),
            self.paint(Style::Dim, &state)
        )];
        if let Some(command) = &progress.command {
            lines.push(format!("  {command}"));
        }
        let width = progress.leaves.iter().map(|leaf| leaf.len()).max();
        let width = width.unwrap_or(0);
        let total: u64 = progress.weights.iter().sum();
        for (index, leaf) in progress.leaves.into_iter().enumerate() {
            let configured = share(progress.weights[index], total);
            lines.push(format!(
                "  {leaf:width$}  configured {:>7}  {}",
                percent(configured),
                self.paint(Style::Dim, &bar(configured)),
            ));
            for (place, tally) in &counts {
                let count = tally.answers_of(leaf);
                let observed = share(count, tally.requests());
                let row = rows
                    .into_iter()
                    .flatten()
                    .find(|row| row.index == index && row.place == *place);
                let mark = match row.map(|row| row.verdict) {
                    None => String::new(),
                    Some(Verdict::Good) => self.paint(Style::Green, " ✓"),
                    Some(_) => self.paint(Style::Red, " ✗"),
                };
                lines.push(format!(
                    "  {:>width$}  observed   {:>7}  {} {:>6}{mark}",
                    place.name(),
                    percent(observed),
                    self.paint(Style::Leaf(index), &bar(observed)),
                    grouped(count),
                ));
            }
        }
        for (error, count) in all.errors() {
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
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
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

/// A step for logs: in one line, or one for each place.
fn plain_lines(progress: &Progress, rows: &[Row]) -> Vec<String> {
    let mut lines = vec![format!(
        "step {} of {}: {} programmed after {};",
        progress.step,
        progress.steps,
        weights(progress.weights),
        milliseconds(progress.programmed_after.unwrap_or_default()),
    )];
    if let Some(command) = &progress.command {
        lines[0] += &format!(" {command}");
    }
    for (place, _) in progress.counts() {
        let texts: Vec<_> = rows
            .iter()
            .filter(|row| row.place == place)
            .map(|row| {
                format!(
                    " {} {} of {} ({}, configured {})",
                    row.leaf,
                    grouped(row.observed),
                    grouped(row.requests),
                    percent(share(row.observed, row.requests)),
                    percent(row.configured),
                )
            })
            .collect();
        let text = texts.join(",");
        match place {
            Place::Only => lines[0] += &text,
            place => lines.push(format!("  {}:{text}", place.name())),
        }
    }
    if let Some(last) = lines.last_mut() {
        for (error, count) in Tally::sum(&progress.tallies).errors() {
            *last += &format!("; {} failed: {error}", grouped(count));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::judge;

    #[test]
    fn without_a_terminal_there_is_nothing_to_draw_over_and_no_colour() {
        let screen = Screen::plain();
        assert_eq!(screen.paint(Style::Red, "text"), "text");
        let screen = Screen {
            colour: true,
            ..screen
        };
        assert_eq!(screen.paint(Style::Red, "text"), "\x1b[31mtext\x1b[0m");
    }

    fn progress(tallies: Vec<(Place, Tally)>) -> Progress {
        Progress {
            step: 1,
            steps: 3,
            wording: Wording {
                changed: "edited, waiting for the agent",
                change: "the edit",
            },
            command: None,
            leaves: ["shop-v1", "shop-v2"],
            weights: [50, 50],
            requests: 4,
            programmed_after: Some(Duration::from_millis(6)),
            tallies,
        }
    }

    fn tally(count: u64) -> Tally {
        let mut tally = Tally::default();
        for leaf in ["shop-v1", "shop-v2"] {
            tally.add_many(Ok(leaf.to_owned()), count);
        }
        tally
    }

    #[test]
    fn a_step_in_a_single_place_is_one_plain_line() {
        let progress = progress(vec![(Place::Only, tally(2))]);
        let rows = judge(1, progress.leaves, progress.weights, &progress.tallies);
        assert_eq!(
            plain_lines(&progress, &rows),
            [
                "step 1 of 3: 50/50 programmed after 6 ms; shop-v1 2 of 4 (50.0 %, configured 50.0 %), \
                 shop-v2 2 of 4 (50.0 %, configured 50.0 %)"
            ]
        );
    }

    #[test]
    fn a_step_on_two_nodes_shows_each_and_both() {
        let nodes = ["node-1", "node-2"].map(|name| Place::One(name.to_owned()));
        let tallies = nodes.into_iter().map(|node| (node, tally(1))).collect();
        let mut progress = progress(tallies);
        progress.command = Some("kubectl apply -f step.yaml".to_owned());
        let rows = judge(1, progress.leaves, progress.weights, &progress.tallies);
        let starts = |lines: Vec<String>, expected: &[&str]| {
            assert_eq!(lines.len(), expected.len(), "{lines:#?}");
            for (line, start) in lines.iter().zip(expected) {
                assert!(line.starts_with(start), "{line}");
            }
        };
        starts(
            plain_lines(&progress, &rows),
            &[
                "step 1 of 3: 50/50 programmed after 6 ms; kubectl apply -f step.yaml",
                "  node-1: shop-v1 1 of 2 (50.0 %, configured 50.0 %), shop-v2 1 of 2",
                "  node-2: shop-v1 1 of 2",
                "  both: shop-v1 2 of 4",
            ],
        );
        starts(
            Screen::plain().block(&progress, Some(&rows)),
            &[
                "Step 1 of 3   50/50    programmed 6 ms after the edit   4 of 4 requests",
                "  kubectl apply -f step.yaml",
                "  shop-v1  configured  50.0 %",
                "   node-1  observed    50.0 %",
                "   node-2  observed    50.0 %",
                "     both  observed    50.0 %",
                "  shop-v2  configured  50.0 %",
                "   node-1  observed    50.0 %",
                "   node-2  observed    50.0 %",
                "     both  observed    50.0 %",
            ],
        );
    }
}
