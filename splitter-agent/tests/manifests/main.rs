//! The source of manifests against real files: what a directory holds must be in a
//! Snapshot whatever way it came there, and never by half.

mod check;
mod following;
mod half_written;
mod once;
mod problems;
mod replaced;
mod support;
