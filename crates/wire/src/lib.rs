#![forbid(unsafe_code)]

pub mod envd;
