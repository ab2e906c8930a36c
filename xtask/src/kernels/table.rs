//! The results of all kernels, for people.

use std::time::Duration;

use super::outcome::Outcome;

/// A kernel's results.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What `--kernel` calls it.
    pub(super) kernel: &'static str,
    /// How it went.
    pub(super) outcome: Outcome,
    /// How long it took.
    pub(super) took: Duration,
}

/// The results of all kernels, a line each, of `programs` programs; what has to be said of one
/// follows below it.
pub(super) fn table(rows: &[Row], programs: usize) -> String {
    let head = [
        "kernel",
        "release",
        "programs",
        "refuses by",
        "passed",
        "failed",
        "seconds",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    for Row {
        kernel,
        outcome,
        took,
    } in rows
    {
        lines.push([
            (*kernel).to_owned(),
            outcome.release().to_owned(),
            format!("{} of {programs}", outcome.programs()),
            outcome.refusal().to_owned(),
            outcome.passed().to_string(),
            outcome.failed().to_string(),
            took.as_secs().to_string(),
        ]);
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].len())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<_> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        let remarks = number.checked_sub(1).map(|row| rows[row].outcome.remarks());
        for remark in remarks.unwrap_or_default() {
            text += &format!("  {remark}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use guest::{Programs, Record};

    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_kernel_and_says_what_went_wrong_below_it() {
        let mut good = Outcome::default();
        for record in [
            Record::Started {
                release: "5.15.0-25-generic".to_owned(),
            },
            Record::Programs(Programs {
                loaded: 4,
                chooses_error: Some(false),
                ..Programs::default()
            }),
            Record::Listed {
                program: "datapath".to_owned(),
                tests: vec!["a".to_owned()],
            },
            Record::Output {
                program: "datapath".to_owned(),
                harness: true,
                line: "test a ... ok".to_owned(),
            },
            Record::Finished,
        ] {
            good.take(&record.to_line().unwrap());
        }
        good.end(None);
        let mut bad = Outcome::default();
        bad.end(Some("no end within 9 s".to_owned()));
        let row = |kernel, outcome| Row {
            kernel,
            outcome,
            took: Duration::from_millis(9_900),
        };
        assert_eq!(
            table(&[row("5.15", good), row("6.1", bad)], 4),
            "\
kernel  release            programs  refuses by  passed  failed  seconds
5.15    5.15.0-25-generic  4 of 4    rewrite     1       0       9
6.1     did not start      0 of 4    ?           0       0       9
  no end within 9 s
"
        );
    }
}
