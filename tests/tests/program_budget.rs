//! What the program costs before it has seen a packet: the verifier's work, code, and the maps' memory.

use std::fs;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, MapData};
use lab::program::{kernel::Kernel, requests};
use siteswap_common::maps::{AnswerSet, NAME_SLOTS, NameEntry, SETS};

/// The kernel gives up at a million. A change that comes near this makes the program hard to load on other kernels.
const VERIFIED_INSTRUCTIONS: u32 = 400_000;
const JITED_BYTES: u32 = 48 * 1024;
const NAMES_BYTES: u64 = 20 << 20;
const SETS_BYTES: u64 = 2 << 20;

#[test]
fn the_program_stays_within_its_budget_of_instructions() -> Result<()> {
    let kernel = Kernel::new(&requests::table())?;
    let info = kernel.program("siteswap")?.info()?;
    let verified = info.verified_instruction_count().context("this kernel does not count verified instructions")?;
    println!(
        "verified {verified} instructions, translated {:?} bytes, compiled {} bytes",
        info.size_translated(),
        info.size_jitted()
    );
    assert!(verified <= VERIFIED_INSTRUCTIONS, "{verified}");
    assert!(info.size_jitted() <= JITED_BYTES, "{}", info.size_jitted());
    Ok(())
}

#[test]
fn the_tables_stay_within_their_budget_of_memory() -> Result<()> {
    let _names = Array::<MapData, NameEntry>::create(NAME_SLOTS, 0)?;
    let _sets = Array::<MapData, AnswerSet>::create(SETS, 0)?;
    for (what, entries, budget) in [("names", NAME_SLOTS, NAMES_BYTES), ("sets", SETS, SETS_BYTES)] {
        let bytes = charged(entries)?;
        println!("{what}: {bytes} bytes");
        assert!(bytes <= budget, "{what}: {bytes} bytes, more than {budget}");
    }
    Ok(())
}

/// What the kernel says this process's map with so many entries takes, in bytes.
fn charged(entries: u32) -> Result<u64> {
    for file in fs::read_dir("/proc/self/fdinfo")? {
        // A file that another thread has closed meanwhile is not the one.
        let info = fs::read_to_string(file?.path()).unwrap_or_default();
        let field = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u64>().ok()
        };
        if field("max_entries:") == Some(entries.into()) {
            return field("memlock:").context("no memlock in fdinfo");
        }
    }
    bail!("no map with {entries} entries")
}
