//! What the store promises, tried on a real disk.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &dir.path().join("memory")).unwrap();
    (dir, store)
}

fn large() -> Vec<u8> {
    (0..3_000_000u32).map(|n| (n % 253) as u8).collect()
}

#[test]
fn what_goes_in_comes_out_and_is_read_only() {
    let (_dir, store) = store();
    for bytes in [vec![], b"hello".to_vec(), large()] {
        let (digest, size) = store.add(&mut &bytes[..]).unwrap();
        assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
        assert_eq!(store.read(&digest).unwrap(), bytes);
        let mode = fs::metadata(store.blob_path(&digest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }
    assert_eq!(store.list().unwrap().len(), 3);
}

#[test]
fn a_wrong_byte_a_short_and_a_long_body_do_not_get_in() {
    let (_dir, store) = store();
    let expected = Digest::of(b"hello");
    assert!(matches!(store.ingest(expected, 5, &mut &b"hellO"[..]), Err(StoreError::Mismatch { .. })));
    assert!(matches!(store.ingest(expected, 5, &mut &b"hell"[..]), Err(StoreError::Length { expected: 5, found: 4 })));
    assert!(matches!(store.ingest(expected, 5, &mut &b"hello!"[..]), Err(StoreError::Length { expected: 5, .. })));
    assert!(!store.contains(&expected, 5).unwrap());
    store.ingest(expected, 5, &mut &b"hello"[..]).unwrap();
    assert!(store.contains(&expected, 5).unwrap());
}

#[test]
fn an_interrupted_sink_goes_on_where_it_was() {
    let (_dir, store) = store();
    let bytes = large();
    let digest = Digest::of(&bytes);
    let mut sink = store.sink(digest, bytes.len() as u64).unwrap().unwrap();
    sink.write(&bytes[..1_000_000]).unwrap();
    drop(sink);
    let mut sink = store.sink(digest, bytes.len() as u64).unwrap().unwrap();
    assert_eq!(sink.offset(), 1_000_000);
    sink.write(&bytes[1_000_000..]).unwrap();
    sink.finish().unwrap();
    assert_eq!(store.read(&digest).unwrap(), bytes);
    assert!(store.sink(digest, bytes.len() as u64).unwrap().is_none());
}

#[test]
fn a_flipped_byte_is_found_and_moved_aside() {
    let (_dir, store) = store();
    for bytes in [b"small".to_vec(), large()] {
        let (digest, size) = store.add(&mut &bytes[..]).unwrap();
        let path = store.blob_path(&digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let mut wrong = bytes.clone();
        wrong[2] ^= 1;
        fs::File::options().write(true).open(&path).unwrap().write_all(&wrong).unwrap();
        let verified = store.verify(2, &crate::progress::Progress::silent()).unwrap();
        assert_eq!(verified.spoiled, [digest]);
        assert!(!store.contains(&digest, size).unwrap());
        // The good twin: brought again, it is fine.
        store.ingest(digest, size, &mut &bytes[..]).unwrap();
        assert!(store.verify(2, &crate::progress::Progress::silent()).unwrap().spoiled.is_empty());
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_touched_large_blob_is_hashed_before_it_is_opened() {
    let (_dir, store) = store();
    let mut bytes = large();
    let (digest, size) = store.add(&mut &bytes[..]).unwrap();
    let path = store.blob_path(&digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    bytes[9] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(store.open_blob(&digest), Err(StoreError::Spoiled { .. })));
    assert!(!store.contains(&digest, size).unwrap());
}

#[test]
fn placing_links_where_it_can_and_copies_where_it_cannot() {
    let (_dir, store) = store();
    let bytes = large();
    let (digest, size) = store.add(&mut &bytes[..]).unwrap();
    let out = tempfile::tempdir_in(store.root()).unwrap();
    assert_eq!(store.place(&digest, size, &out.path().join("a")).unwrap(), Placed::Linked);
    assert_eq!(store.place(&digest, size, &out.path().join("a")).unwrap(), Placed::Linked);
    // /dev/shm is another file system.
    if let Ok(other) = tempfile::tempdir_in("/dev/shm") {
        assert_eq!(store.place(&digest, size, &other.path().join("a")).unwrap(), Placed::Copied);
        assert_eq!(fs::read(other.path().join("a")).unwrap(), bytes);
    }
}

#[test]
fn an_original_is_read_once_and_again_after_a_change() {
    let (dir, store) = store();
    let path = dir.path().join("weights.bin");
    fs::write(&path, large()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(80));
    let (first, _) = store.add_file(&path, &Task::hidden()).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(store.remembered_original(&path, &meta), Some(first));
    let mut changed = large();
    changed[0] ^= 1;
    fs::write(&path, &changed).unwrap();
    let (second, _) = store.add_file(&path, &Task::hidden()).unwrap();
    assert_eq!(second, Digest::of(&changed));
    // The store's copy of the first is not the user's file.
    assert_eq!(store.read(&first).unwrap(), large());
}

#[test]
fn many_at_once_store_one() {
    let (_dir, store) = store();
    let bytes = large();
    let digest = Digest::of(&bytes);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| store.ingest(digest, bytes.len() as u64, &mut &bytes[..]).unwrap());
        }
    });
    assert_eq!(store.list().unwrap(), [(digest, bytes.len() as u64)]);
}

#[test]
fn gc_keeps_what_is_named_and_clears_the_rest() {
    let (_dir, store) = store();
    let (keep, _) = store.add(&mut &b"keep"[..]).unwrap();
    store.add(&mut &b"drop"[..]).unwrap();
    fs::write(store.root().join("blobs/sha256/.tmp-999999999-1"), b"dead").unwrap();
    let collected = store.alone().unwrap().gc(&std::collections::BTreeSet::from([keep])).unwrap();
    assert_eq!(collected, Collected { files: 2, bytes: 8 });
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn gc_asks_the_lock_of_a_temporary_file_not_its_name() {
    let (_dir, store) = store();
    let blobs = store.root().join("blobs/sha256");
    // Numbers of processes that live: this one and the first; what was left behind in another container.
    for name in [format!(".tmp-{}-0", std::process::id()), ".tmp-1-0".into(), ".part-00".into()] {
        fs::write(blobs.join(name), b"dead").unwrap();
    }
    fs::create_dir(blobs.join(".tmp-7")).unwrap();
    fs::write(blobs.join(".tmp-7/1"), b"dead").unwrap();
    let living = store.scratch().unwrap();
    let folder = Scratch::folder_in(&blobs).unwrap();
    let sink = store.sink(Digest::of(b"hello"), 5).unwrap().unwrap();
    let collected = store.alone().unwrap().gc(&Default::default()).unwrap();
    assert_eq!(collected, Collected { files: 4, bytes: 16 });
    assert!(living.path().exists() && folder.path().exists());
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 3);
    // The good twin: what nobody holds any more goes by itself; a part stays for a resume until it is collected.
    drop((living, folder, sink));
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 1);
    assert_eq!(store.alone().unwrap().gc(&Default::default()).unwrap().files, 1);
}

#[test]
fn scratch_names_are_never_shared_and_a_scratch_becomes_a_blob() {
    let (_dir, store) = store();
    let (one, two) = (store.scratch().unwrap(), store.scratch().unwrap());
    assert_ne!(one.path(), two.path());
    let path = one.path().to_owned();
    fs::write(&path, b"made").unwrap();
    store.adopt_scratch(one, &Digest::of(b"made"), 4).unwrap();
    assert!(!path.exists());
    assert_eq!(store.read(&Digest::of(b"made")).unwrap(), b"made");
    fs::write(two.path(), b"made").unwrap();
    store.adopt_scratch(two, &Digest::of(b"made"), 4).unwrap();
    assert_eq!(fs::read_dir(store.root().join("blobs/sha256")).unwrap().count(), 1);
}

#[test]
#[should_panic(expected = "a writer hashed something else")]
#[cfg(debug_assertions)]
fn a_scratch_with_another_digest_is_a_bug() {
    let (_dir, store) = store();
    let scratch = store.scratch().unwrap();
    fs::write(scratch.path(), b"made").unwrap();
    drop(store.adopt_scratch(scratch, &Digest::of(b"said"), 4));
}

#[test]
fn many_small_files_wait_in_one_folder_and_leave_nothing_behind() {
    let (dir, store) = store();
    let paths: Vec<PathBuf> = (0..50).map(|n| dir.path().join(format!("file{n}"))).collect();
    // Some are equal.
    paths.iter().enumerate().for_each(|(n, path)| fs::write(path, [n as u8 % 20]).unwrap());
    let taken = store.add_files(&paths, 4, &Task::hidden()).unwrap();
    assert_eq!(taken[21], (Digest::of(&[1]), 1));
    let blobs = store.root().join("blobs/sha256");
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 20);
    fs::write(&paths[0], b"new").unwrap();
    let missing = [paths[0].clone(), dir.path().join("missing")];
    assert!(matches!(store.add_files(&missing, 1, &Task::hidden()), Err(StoreError::Io { .. })));
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 20, "a failed batch left files behind");
}

#[test]
fn a_lock_with_a_wrong_size_does_not_move_a_good_blob() {
    let (_dir, store) = store();
    for bytes in [b"small".to_vec(), large()] {
        let (digest, size) = store.add(&mut &bytes[..]).unwrap();
        let error = store.contains(&digest, size + 1).unwrap_err();
        assert!(matches!(error, StoreError::Size { expected, found, .. } if (expected, found) == (size + 1, size)), "{error}");
        assert!(matches!(store.sink(digest, 0), Err(StoreError::Size { .. })));
        assert!(store.contains(&digest, size).unwrap());
        assert!(!store.root().join("refused").exists());
        // The bad twin: a blob that really has another length.
        fs::remove_file(store.blob_path(&digest)).unwrap();
        fs::write(store.blob_path(&digest), b"short").unwrap();
        if bytes != b"small" {
            assert!(!store.contains(&digest, size).unwrap());
            assert!(store.root().join("refused").join(digest.hex()).exists());
        }
    }
}

#[test]
fn a_store_from_elsewhere_is_not_believed() {
    let (dir, store) = store();
    let bytes = large();
    let (digest, size) = store.add(&mut &bytes[..]).unwrap();
    store.remember("layers", &digest, "text").unwrap();
    // The same folder, with all that its maker remembered in it, opened by somebody else.
    for kind in ["trust", "cache"] {
        fs::rename(dir.path().join("memory").join(kind), store.root().join(kind)).unwrap();
    }
    let other = Store::open(store.root(), &dir.path().join("other")).unwrap();
    assert_eq!(other.recall("layers", &digest), None);
    assert!(!other.trusted(&digest, &fs::metadata(store.blob_path(&digest)).unwrap()));
    // It is hashed, and then trusted.
    assert!(other.contains(&digest, size).unwrap());
    assert!(other.trusted(&digest, &fs::metadata(store.blob_path(&digest)).unwrap()));
}

#[test]
fn a_store_that_may_only_be_read_is_read() {
    let (dir, store) = store();
    let (digest, size) = store.add(&mut &large()[..]).unwrap();
    let folders = [store.root().join("blobs/sha256"), store.root().join("blobs"), store.root().to_owned()];
    let set = |mode| folders.iter().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap());
    fs::remove_file(store.root().join(".lock")).unwrap();
    set(0o555);
    let memory = dir.path().join("memory");
    let read = Store::open(store.root(), &memory).and_then(|store| store.contains(&digest, size));
    set(0o755);
    assert!(read.unwrap());
}

#[test]
fn a_large_blob_changed_under_its_old_time_is_not_trusted() {
    let (_dir, store) = store();
    let mut bytes = large();
    let (digest, size) = store.add(&mut &bytes[..]).unwrap();
    let path = store.blob_path(&digest);
    let out = tempfile::tempdir_in(store.root()).unwrap();
    let trusted = || store.trusted(&digest, &fs::metadata(&path).unwrap());
    // Our own links leave it trusted; somebody's link does not.
    store.place(&digest, size, &out.path().join("a")).unwrap();
    assert!(trusted());
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::hard_link(&path, out.path().join("b")).unwrap();
    assert!(!trusted());
    assert!(store.contains(&digest, size).unwrap() && trusted());
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    bytes[7] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified)).unwrap();
    // Linking does not make a changed blob trusted.
    assert!(matches!(store.place(&digest, size, &out.path().join("c")), Err(StoreError::Spoiled { .. })));
    assert!(!out.path().join("c").exists());
}

#[test]
fn gc_waits_until_no_other_has_the_store_open() {
    let (dir, store) = store();
    let other = Store::open(store.root(), &dir.path().join("memory")).unwrap();
    let (digest, _) = other.add(&mut &b"needed soon"[..]).unwrap();
    std::thread::scope(|scope| {
        let gc = scope.spawn(|| store.alone().unwrap().gc(&Default::default()).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!gc.is_finished());
        assert!(other.read(&digest).is_ok());
        drop(other);
        assert_eq!(gc.join().unwrap().files, 1);
    });
    // Afterwards it is shared again.
    Store::open(store.root(), &dir.path().join("memory")).unwrap();
}

#[test]
fn a_wrong_file_of_the_right_size_is_replaced() {
    let (dir, store) = store();
    let (digest, size) = store.add(&mut &b"right"[..]).unwrap();
    let to = dir.path().join("to");
    for place in [Store::place, Store::place_apart] {
        fs::write(&to, b"wrong").unwrap();
        assert_ne!(place(&store, &digest, size, &to).unwrap(), Placed::Present);
        assert_eq!(fs::read(&to).unwrap(), b"right");
        fs::remove_file(&to).unwrap();
    }
    assert_ne!(store.place_apart(&digest, size, &to).unwrap(), Placed::Present);
    assert_eq!(store.place_apart(&digest, size, &to).unwrap(), Placed::Present);
}
