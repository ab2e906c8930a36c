//! From objects to a plan: a pure function, in which every decision that a person could
//! argue about is made.

mod diagnostics;

pub use diagnostics::{Diagnostic, Severity};
