//! x
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
/// x
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Copies {}
impl Copies {
    /// x
    pub fn cheats(&self) -> Vec<String> {
        Vec::new()
    }
}
impl fmt::Display for Copies {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
