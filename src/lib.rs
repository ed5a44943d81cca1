//! Althing: scaffold of the map.
pub mod base;

pub mod config;
pub mod store;
pub mod sys;
pub mod wire;

pub mod machine;

pub mod watch;

pub mod replica;

pub mod node;

pub mod api;
pub mod render;

pub mod ctl;

pub mod daemon;
