//! The agent as its users meet it: a process, its files, its signals and its commands; and how much
//! work it makes of what it is told.

#[path = "../common/mod.rs"]
mod common;

mod arrival;
mod bookstore;
mod canary;
mod clients;
mod commands;
mod connections;
mod life;
mod pages;
mod status;
mod udp;
