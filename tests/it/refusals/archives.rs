//! Rows: archives with everything that a hostile hand can put into one, through `pack inspect`.

use super::Row;
pub const ROWS: &[Row] = &[];
