//! The `allpet` command line.

fn main() {}
