//! The table at the end of the demo, and what to think of it.

use std::io;

use super::judge::{Outcome, Row, Verdict, share};
use super::screen::{Screen, Style};
use super::text::{grouped, percent, weights};

impl Screen {
    /// Prints the table of everything.
    pub(crate) fn summarise(&mut self, rows: &[Row]) -> io::Result<()> {
        let mut lines = Vec::new();
        if !self.is_live() {
            lines.push(String::new());
        }
        lines.extend(self.table(rows));
        lines.push(String::new());
        lines.push(self.verdict(rows));
        self.print(&lines)
    }

    /// A heading, and a line for each row. What is the same as in the line above is left out.
    fn table(&self, rows: &[Row]) -> Vec<String> {
        let leaf_width = widest(rows, |row| row.leaf.len());
        let place_width = widest(rows, |row| row.place.name().len());
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
        let mut above: Option<&Row> = None;
        for row in rows {
            let is_new_step = above.is_none_or(|above| above.step != row.step);
            let is_new_leaf = is_new_step || above.is_none_or(|above| above.leaf != row.leaf);
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
                place(row.place.name()),
                percent(row.configured),
                grouped(row.observed),
                percent(share(row.observed, row.requests)),
            ));
            above = Some(row);
        }
        lines
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
}

fn widest(rows: &[Row], width: impl Fn(&Row) -> usize) -> usize {
    rows.iter().map(width).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Tally;
    use crate::judge::{Place, judge};

    fn tally(counts: [u64; 2]) -> Tally {
        let mut tally = Tally::default();
        for (leaf, count) in ["shop-v1", "shop-v2"].into_iter().zip(counts) {
            tally.add_many(Ok(leaf.to_owned()), count);
        }
        tally
    }

    fn table(tallies: &[(Place, Tally)]) -> String {
        let rows = judge(1, ["shop-v1", "shop-v2"], [50, 50], tallies);
        Screen::plain().table(&rows).join("\n")
    }

    #[test]
    fn a_single_place_has_no_column() {
        let table = table(&[(Place::Only, tally([5, 5]))]);
        assert_eq!(
            table,
            "\
step  weights  leaf     configured  observed    share  allowed error  verdict
   1    50/50  shop-v1      50.0 %         5   50.0 %          exact  ok
               shop-v2      50.0 %         5   50.0 %          exact  ok"
        );
    }

    #[test]
    fn nodes_have_a_column_and_a_line_each() {
        let node = |number| Place::One(format!("node-{number}"));
        let table = table(&[(node(1), tally([5, 5])), (node(2), tally([6, 4]))]);
        assert_eq!(
            table,
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
}
