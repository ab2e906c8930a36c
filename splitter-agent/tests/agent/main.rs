//! The agent as its users meet it: a process, its files, its signals and its commands.

#[path = "../common/mod.rs"]
mod common;

mod bookstore;
mod canary;
mod clients;
mod commands;
mod life;
mod pages;
mod status;
