//! The table of refusals: each bad input, the command that meets it, its exit code and its exact sentence.
//!
//! A row has a good twin: the same project, unspoiled, passes the same command. A story is a row that needs
//! more than one command; it holds its own twin. Every row of [`TABLE`] runs, every phrase of [`MUST`] has a
//! row, and a lost row fails the count. `PACK_TEST_ROW=text` runs some while writing them; CI refuses it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Bench, Ran};

mod archives;
mod bundles;
mod disk;
mod documents;
mod git;
mod hub;
mod network;
mod rules;
mod signatures;
mod trees;
mod weights;
mod wheels;

/// One line of the table.
pub struct Row {
    /// The phrase of [`MUST`] that it answers.
    pub of: &'static str,
    /// What is wrong.
    pub name: &'static str,
    /// How it is tried.
    pub how: How,
}

/// How a row is tried.
pub enum How {
    /// One command on a project that was spoiled.
    Refused(Refused),
    /// More than one command; panics where it does not hold.
    Story(fn()),
}

/// One command on a project that was spoiled.
pub struct Refused {
    /// The project.
    pub bench: fn() -> Bench,
    /// What is done to it.
    pub spoil: fn(&mut Bench),
    /// What is typed.
    pub command: &'static str,
    /// How it ends; 0 without `spoil`.
    pub code: i32,
    /// What it says, as whole lines; see [`judge`].
    pub says: &'static str,
}

/// All of it.
const TABLE: &[&[Row]] = &[
    documents::ROWS,
    trees::ROWS,
    archives::ROWS,
    network::ROWS,
    disk::ROWS,
    weights::ROWS,
    wheels::ROWS,
    hub::ROWS,
    git::ROWS,
    rules::ROWS,
    signatures::ROWS,
    bundles::ROWS,
];

/// What the table must cover, and how many rows of it there are at least.
const MUST: &[(&str, usize)] = &[
    ("wrong byte of the right length", 2),
    ("truncated body", 1),
    ("server", 7),
    ("archive", 20),
    ("RECORD", 4),
    ("another platform", 1),
    ("signature", 3),
    ("repository gone", 2),
    ("changes while read", 1),
    ("full disk", 2),
    ("kill -9", 3),
    ("two packs", 3),
    ("flipped byte", 3),
    ("token", 4),
    ("future", 2),
    ("unknown", 8),
    ("colliding", 3),
    ("names", 3),
    ("many files", 1),
    ("empty", 2),
    ("special files", 4),
    ("stale", 3),
    ("weights", 18),
    ("hub", 32),
    ("competition", 22),
    ("git and url", 12),
    ("source distribution", 2),
    ("attestation", 16),
    ("bundle", 26),
];

#[test]
fn every_row_holds() {
    let chosen = std::env::var("PACK_TEST_ROW").ok();
    assert!(chosen.is_none() || std::env::var_os("CI").is_none(), "CI runs every row");
    let rows: Vec<&Row> = TABLE.iter().copied().flatten().collect();
    let wanted = |row: &Row| chosen.as_ref().is_none_or(|text| row.name.contains(text.as_str()) || row.of == text);
    let (next, ran, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
            if !wanted(row) {
                continue;
            }
            let tried = std::panic::catch_unwind(|| try_row(row));
            ran.fetch_add(1, Ordering::SeqCst);
            let wrong = match tried {
                Ok(Ok(())) => continue,
                Ok(Err(wrong)) => wrong,
                Err(panic) => panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default(),
            };
            failed.lock().unwrap().push(format!("== {}: {}\n{wrong}", row.of, row.name));
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} rows do not hold:\n{}", failed.len(), failed.join("\n"));
    if chosen.is_none() {
        assert_eq!(ran.into_inner(), rows.len(), "a row was skipped");
    }
}

fn try_row(row: &Row) -> Result<(), String> {
    let refused = match &row.how {
        How::Story(story) => {
            story();
            return Ok(());
        }
        How::Refused(refused) => refused,
    };
    let good = (refused.bench)().run(refused.command);
    if good.code != 0 {
        return Err(format!("its good twin ends with {}:\n{}", good.code, good.all()));
    }
    let mut bench = (refused.bench)();
    (refused.spoil)(&mut bench);
    judge(&bench.run(refused.command), refused.code, refused.says)
}

/// Whether a run ended so and said these whole lines.
pub fn judge(ran: &Ran, code: i32, says: &str) -> Result<(), String> {
    let all = format!("\n{}", ran.all());
    // `…` on a line of its own stands for lines that another program says.
    let said = says.split("\n…\n").all(|lines| all.contains(&format!("\n{}\n", lines.trim_end())));
    if ran.code == code && said {
        return Ok(());
    }
    Err(format!("expected {code} and\n{says}\nfound {} and\n{}", ran.code, ran.all()))
}

#[test]
fn the_table_is_whole() {
    let rows: Vec<&Row> = TABLE.iter().copied().flatten().collect();
    for (phrase, least) in MUST {
        let found = rows.iter().filter(|row| row.of == *phrase).count();
        assert!(found >= *least, "`{phrase}` has {found} rows, at least {least} are wanted");
    }
    for row in &rows {
        assert!(MUST.iter().any(|(phrase, _)| *phrase == row.of), "`{}` answers nothing: {}", row.name, row.of);
        assert_eq!(rows.iter().filter(|other| other.name == row.name).count(), 1, "`{}` is there twice", row.name);
    }
}
