//! What happens to the process: SIGKILL at any instant, a limit on file sizes, other numbers of threads.
//!
//! The children are this test program itself, told by a variable in which folder to train.
use crate::toy::{StopAfter, config, newest, train};
use allpet_train::{JsonLines, Outcome, checkpoint};
use candle_core::Device;
use rand::Rng;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "ALLPET_TRAIN_TEST_FOLDER";
const STEPS: usize = 60;

/// Trains in the folder the parent names; without one it is a test that passes.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let mut log = JsonLines::new(folder.join("metrics.jsonl"));
    match train(
        folder,
        &config(STEPS),
        true,
        Duration::from_millis(2),
        &mut [&mut log],
    ) {
        Ok(Outcome::Finished { .. }) => {}
        Ok(other) => panic!("{other:?}"),
        Err(error) => panic!("failed: {error}"),
    }
}

fn spawn(folder: &Path, threads: usize, before: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    Command::new("sh")
        .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(program)
        .args(["--exact", "killed::child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Steps that would not be done again.
fn progress(folder: &Path) -> Option<u64> {
    Some(
        checkpoint::load(&checkpoint::find(folder)?, &Device::Cpu)
            .unwrap()
            .step,
    )
}

#[test]
fn killed_again_and_again_it_ends_in_the_same_bytes() {
    let [whole, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    train(whole.path(), &config(STEPS), false, Duration::ZERO, &mut []).unwrap();

    let mut random = rand::rng();
    let mut kills = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "no end after kills at {kills:?}");
        let mut child = spawn(killed.path(), 1 + kills.len() % 2, "");
        // Enough kills seen: the last child may finish.
        if kills.len() < 6 {
            // Every other kill waits for a checkpoint, so that some fall inside the run on a slow machine too.
            let seen = kills.last().copied();
            while kills.len() % 2 == 1
                && progress(killed.path()) == seen
                && child.try_wait().unwrap().is_none()
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(random.random_range(15..90)));
            // SIGKILL on Unix.
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            break;
        }
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(
            output.status.signal(),
            Some(9),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        kills.push(progress(killed.path()).unwrap_or(0));
    }
    assert!(
        kills.iter().any(|&step| step > 0 && step < STEPS as u64),
        "no kill fell inside the run: {kills:?}"
    );
    assert!(
        newest(killed.path()) == newest(whole.path()),
        "kills at {kills:?}"
    );
    let text = std::fs::read_to_string(killed.path().join("metrics.jsonl")).unwrap();
    assert_eq!(text.lines().count(), STEPS);
    let names: Vec<_> = std::fs::read_dir(killed.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "leftovers: {names:?}");
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let folders = [1, 2].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let output = spawn(folder.path(), threads, "").wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        folder
    });
    assert!(newest(folders[0].path()) == newest(folders[1].path()));
}

#[test]
fn a_disk_that_takes_no_more_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let stopped = train(
        folder.path(),
        &config(STEPS),
        false,
        Duration::ZERO,
        &mut [&mut StopAfter(9)],
    )
    .unwrap();
    assert!(matches!(stopped, Outcome::Interrupted { step: 9, .. }));
    let before = newest(folder.path());
    // Files may grow to 2 blocks of 512 or 1,024 bytes; the write fails as on a full disk.
    let output = spawn(folder.path(), 2, "trap '' XFSZ; ulimit -f 2;")
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        said.contains("failed: cannot write") && said.contains("checkpoint.safetensors"),
        "{said}"
    );
    assert!(newest(folder.path()) == before);

    let output = spawn(folder.path(), 2, "").wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "with room again it ends: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        checkpoint::load(&folder.path().join(checkpoint::FILE), &Device::Cpu)
            .unwrap()
            .step,
        STEPS as u64
    );
}

/// A process killed after the newest checkpoint got its second name and before a newer one was written leaves one file
/// under both names; renaming one to the other then does nothing.
#[test]
fn two_names_of_one_checkpoint_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &config(4), false, Duration::ZERO, &mut []).unwrap();
    let newest = folder.path().join(checkpoint::FILE);
    let previous = folder.path().join(checkpoint::PREVIOUS);
    let _ = std::fs::remove_file(&previous);
    std::fs::hard_link(&newest, &previous).unwrap();
    let read = checkpoint::load(&newest, &Device::Cpu).unwrap();
    checkpoint::save(folder.path(), &read).unwrap();
    let leftovers: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".tmp"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}
