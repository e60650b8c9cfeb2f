//! The program as its users meet it: run as a process, judged by its files, its output and its exit status.

mod arrays;
mod faults;
mod formats;
mod model;
mod runner;
