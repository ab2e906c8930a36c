//! Which splits `status` shows.

use std::fmt;

use clap::Args;

use crate::plan::FrontendPlan;

/// Which splits to show.
#[derive(Debug, Args)]
pub(in super::super) struct SelectionArgs {
    /// Show splits of this namespace, or the one of this name; the name is that of the
    /// object that asks for the split or of its root Service [default: all].
    #[arg(value_name = "NAMESPACE[/NAME]", value_parser = Path::parse)]
    path: Option<Path>,

    /// Show splits of this namespace; what else is given is then a name.
    #[arg(short, long, value_name = "NAMESPACE", value_parser = label)]
    namespace: Option<String>,
}

/// `NAMESPACE`, `NAMESPACE/NAME`, or with --namespace, `NAME`.
#[derive(Clone, Debug)]
struct Path {
    first: String,
    second: Option<String>,
}

impl Path {
    fn parse(text: &str) -> Result<Self, String> {
        let (first, second) = match text.split_once('/') {
            Some((first, second)) => (first, Some(label(second)?)),
            None => (text, None),
        };
        Ok(Self {
            first: label(first)?,
            second,
        })
    }
}

/// A name as Kubernetes has them.
fn label(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty()
        && text
            .chars()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-' || it == '.');
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("give NAMESPACE, or NAMESPACE/NAME".to_owned())
    }
}

impl SelectionArgs {
    /// What was asked for. Ends the process, as clap does, if something is wrong with it.
    pub(in super::super) fn selection_or_exit(&self) -> Selection {
        self.selection()
            .unwrap_or_else(|wrong| super::super::usage(wrong))
    }

    /// What was asked for, or what is wrong with it.
    fn selection(&self) -> Result<Selection, &'static str> {
        let (namespace, name) = match (self.namespace.clone(), self.path.clone()) {
            (None, None) => (None, None),
            (None, Some(Path { first, second })) => (Some(first), second),
            (namespace, None) => (namespace, None),
            (
                Some(_),
                Some(Path {
                    second: Some(_), ..
                }),
            ) => {
                return Err("with --namespace, give the NAME alone");
            }
            (namespace, Some(Path { first, .. })) => (namespace, Some(first)),
        };
        Ok(Selection { namespace, name })
    }
}

/// Which splits to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Selection {
    namespace: Option<String>,
    name: Option<String>,
}

impl Selection {
    pub(in super::super) fn is_everything(&self) -> bool {
        self.namespace.is_none() && self.name.is_none()
    }

    pub(in super::super) fn matches(&self, split: &FrontendPlan) -> bool {
        let is = |wanted: &Option<String>, names: &[&str]| {
            wanted
                .as_deref()
                .is_none_or(|wanted| names.contains(&wanted))
        };
        let (object, root) = (&split.origin, &split.root);
        is(&self.namespace, &[&object.namespace, &root.namespace])
            && is(&self.name, &[&object.name, &root.name])
    }
}

/// To follow the word "split".
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, " by the name or of the Service {name}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " in namespace {namespace}")?;
        }
        Ok(())
    }
}
