//! pypi

pub mod pylock;
pub mod requirements;
pub mod simple;
pub mod tags;
