//! The only place that starts threads for work on many items.
//!
//! Layer 3 (effects). Results come back in input order, and the error reported is the first in input
//! order, so that what is printed and written never depends on timing. Must never reorder.

#![allow(clippy::disallowed_methods, reason = "effects: owns the worker threads")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Applies `f` to every item on at most `jobs` threads. After an error, items not yet begun that stand
/// later in the input are skipped; earlier ones still run, so the first error in input order is returned.
pub fn map_ordered<T: Sync, R: Send, E: Send>(
    items: &[T],
    jobs: usize,
    f: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    if jobs <= 1 || items.len() <= 1 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let failed_at = AtomicUsize::new(usize::MAX);
    let slots: Vec<Mutex<Option<Result<R, E>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    if at >= items.len() || at > failed_at.load(Ordering::SeqCst) {
                        return;
                    }
                    let result = f(&items[at]);
                    if result.is_err() {
                        failed_at.fetch_min(at, Ordering::SeqCst);
                    }
                    *slots[at].lock().expect("no other thread holds this item's slot") = Some(result);
                }
            });
        }
    });
    let mut out = Vec::with_capacity(items.len());
    for slot in slots {
        match slot.into_inner().expect("the workers have ended") {
            Some(Ok(value)) => out.push(value),
            Some(Err(error)) => return Err(error),
            None => unreachable!("an item is skipped only behind a failed one"),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_returns_the_first_error() {
        let items: Vec<usize> = (0..100).collect();
        for jobs in [1, 2, 8] {
            assert_eq!(map_ordered(&items, jobs, |n| Ok::<_, ()>(n * 2)).unwrap()[99], 198);
            let failed = map_ordered(&items, jobs, |n| {
                if *n == 70 {
                    return Err(70);
                }
                if *n == 30 {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    return Err(30);
                }
                Ok(())
            });
            assert_eq!(failed.unwrap_err(), 30, "jobs {jobs}");
        }
    }
}
