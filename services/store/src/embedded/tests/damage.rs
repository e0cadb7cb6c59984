//! Files that were changed behind the store's back: refused in words, or read whole; never read wrong.

use super::super::sim::SimDisk;
use super::*;
use crate::record::Record;
use crate::transaction::Transaction;

/// A file after a clean end, with an image, journals and garbage in it, and its records.
fn file() -> (Vec<u8>, Vec<Arc<Record>>) {
    let disk = SimDisk::holding(empty_disk());
    let subject = open(&disk).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let records = runtime.block_on(async {
        for index in 0..150 {
            let put = Transaction::new().put(format!("key/{:03}", index % 60), vec![b'v'; 90]);
            let _committed = subject.embedded.commit(put).await.unwrap();
        }
        let records = records(&subject);
        subject.embedded.close().await;
        records
    });
    (disk.contents(), records)
}

/// All records but that of the start.
fn records(subject: &Subject) -> Vec<Arc<Record>> {
    subject.shared.list("key/").unwrap().records
}

fn check(contents: Vec<u8>, expected: &[Arc<Record>], what: &str) -> bool {
    match open(&SimDisk::holding(contents)) {
        Ok(subject) => {
            assert_eq!(records(&subject), expected, "{what}");
            true
        }
        Err(OpenError::Damaged { detail, .. }) => {
            assert!(!detail.is_empty());
            false
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn a_changed_byte_is_found_or_harmless() {
    let (contents, expected) = file();
    assert!(check(contents.clone(), &expected, "unchanged"));
    let mut dice = Dice(1);
    let mut found = 0;
    let used: Vec<_> = (0..contents.len())
        .filter(|index| contents[*index] != 0)
        .collect();
    for _ in 0..rounds(300, 20_000) {
        let index = used[usize::try_from(dice.roll(used.len() as u64)).unwrap()];
        let mut changed = contents.clone();
        changed[index] ^= 1 << dice.roll(8);
        if !check(changed, &expected, &format!("byte {index}")) {
            found += 1;
        }
    }
    assert!(found > 0, "no change was ever found");
}

#[test]
fn a_cut_file_is_refused() {
    let (contents, expected) = file();
    let mut lengths: Vec<_> = (1..64).map(|part| contents.len() * part / 64).collect();
    lengths.extend([0, 1, 8, 9, 100, 512, 4096, contents.len() - 1]);
    for length in lengths {
        if length == 0 {
            // Only the file layer can tell an emptied file from a new one.
            continue;
        }
        let whole = check(
            contents[..length].to_vec(),
            &expected,
            &format!("cut to {length}"),
        );
        assert!(!whole, "cut to {length} of {}", contents.len());
    }
}
