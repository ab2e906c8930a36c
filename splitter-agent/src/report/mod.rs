//! What the agent tells of itself and of the objects: shared state, and those who read it.
//!
//! The agent alone writes: findings about objects to the [`Board`], and what it is doing
//! to the [`Progress`]. Metrics, health checks and events read both, each in its own time;
//! none of them can hold up a publication.

mod board;
mod progress;

pub use board::{Board, Standing};
pub use progress::{Programmed, Progress, Status};
