//! When memory runs out, the kernel should take a job and not the daemon: its score is lower than theirs.

/// Lower than what any job begins with (0), higher than what nothing may ever end (−1000).
const SCORE: i32 = -900;

/// Lowers the score of this process, and so of the shims that it starts; children get theirs at their birth. Without the
/// privilege, or where somebody chose a lower one, it stays as it is: a daemon that is killed loses nothing.
pub fn spare_this_process() {
    let path = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(path).ok();
    let now: Option<i32> = now.and_then(|text| text.trim().parse().ok());
    if now.is_some_and(|now| now > SCORE) {
        let _not_permitted = std::fs::write(path, SCORE.to_string());
    }
}
