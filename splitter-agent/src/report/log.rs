//! The agent's log, whose level can be changed while it runs.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Form of the log on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log cannot be started, or its level not be changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error(
        "`{filter}` is not a log filter ({reason}); give a level such as `info`, or filters such \
         as `info,splitter_agent=debug`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process has another log already.
    #[error("cannot start the log: {0}")]
    Start(String),
    /// The log is gone.
    #[error("cannot change the log's level: {0}")]
    Change(String),
}

/// Changes the level of the log; a handle that can be cloned.
#[derive(Clone, Debug)]
pub struct LogControl(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The filter in effect, as it was given.
    filter: Mutex<String>,
    logs_kernel_programs: bool,
}

/// Puts node and version into every JSON line, so that lines of many nodes can be told apart.
struct Stamped<F> {
    inner: F,
    /// Members of an object, without its braces.
    stamp: String,
}

impl<F> Stamped<F> {
    fn new(inner: F, node: &str) -> Self {
        let stamp = format!(
            "\"node\":{},\"version\":{}",
            serde_json::Value::from(node),
            serde_json::Value::from(crate::VERSION)
        );
        Self { inner, stamp }
    }
}

impl<S, N, F> FormatEvent<S, N> for Stamped<F>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = String::new();
        let inner = Writer::new(&mut line);
        self.inner.format_event(context, inner, event)?;
        match line.strip_prefix('{') {
            Some(members) => write!(writer, "{{{},{members}", self.stamp),
            None => writer.write_str(&line),
        }
    }
}

/// Starts the process's log on standard error. `node` is where it runs; JSON lines say so. With `logs_kernel_programs`, what the kernel
/// programs write is always wanted: they are asked for their own level when they are loaded.
///
/// # Errors
///
/// If `filter` is not one, or there is a log already.
pub fn start(
    filter: &str,
    form: LogForm,
    logs_kernel_programs: bool,
    node: &str,
) -> Result<LogControl, LogError> {
    let (layer, handle) = reload::Layer::new(parse(filter, logs_kernel_programs)?);
    let lines = fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    let lines = match form {
        LogForm::Text => lines.boxed(),
        LogForm::Json => lines
            .json()
            .flatten_event(true)
            .map_event_format(|format| Stamped::new(format, node))
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(layer)
        .with(lines)
        .try_init()
        .map_err(|error| LogError::Start(error.to_string()))?;
    Ok(LogControl(Arc::new(Inner {
        handle,
        filter: Mutex::new(filter.to_owned()),
        logs_kernel_programs,
    })))
}

impl LogControl {
    /// The filter in effect.
    #[must_use]
    pub fn filter(&self) -> String {
        self.lock().clone()
    }

    /// Replaces the filter.
    ///
    /// # Errors
    ///
    /// If it is not one; the present one stays in effect.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse(filter, self.0.logs_kernel_programs)?;
        let mut present = self.lock();
        self.0
            .handle
            .reload(parsed)
            .map_err(|error| LogError::Change(error.to_string()))?;
        filter.clone_into(&mut present);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        // Every write is whole.
        self.0.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether [`start`] would take this filter.
///
/// # Errors
///
/// If it is not one.
pub fn check(filter: &str) -> Result<(), LogError> {
    parse(filter, false).map(drop)
}

fn parse(filter: &str, logs_kernel_programs: bool) -> Result<EnvFilter, LogError> {
    let wrong = |reason: String| LogError::Filter {
        filter: filter.to_owned(),
        reason,
    };
    if filter.trim().is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    let directive = |text: &str| {
        text.parse::<Directive>()
            .map_err(|error| wrong(error.to_string()))
    };
    // A word that is no level would pass for the name of a module, and nothing would be logged.
    if let [word] = filter.split(',').collect::<Vec<_>>()[..]
        && !word.contains(['=', '[', ':'])
        && word
            .trim()
            .parse::<tracing_subscriber::filter::LevelFilter>()
            .is_err()
    {
        return Err(wrong(format!("`{}` is not a level", word.trim())));
    }
    // Values in filters are compared, not matched: the right to change the level should not be the
    // right to make the agent run regular expressions.
    let filter = EnvFilter::builder()
        .with_regex(false)
        .parse(format!(
            "{},{filter}",
            crate::source::kubernetes::LOG_FILTER
        ))
        .map_err(|error| wrong(error.to_string()))?;
    Ok(if logs_kernel_programs {
        filter.add_directive(directive("splitter_ebpf=trace")?)
    } else {
        filter
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_not_a_filter_is_refused() {
        for filter in ["", " ", "loud", "splitter_agent=loud", "a=b=c"] {
            assert!(parse(filter, false).is_err(), "{filter}");
        }
        for filter in ["info", "DEBUG", "warn,splitter_agent=debug", "kube=off"] {
            parse(filter, true).unwrap_or_else(|error| panic!("{filter}: {error}"));
        }
    }
}
