//! What it was measured on, without names that are nobody's business.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tokio::process::Command;

use crate::lab::Lab;
use crate::process::find;

/// The machine and the programs.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// How many cores this program may use.
    pub cores: usize,
    /// Name and release of the kernel.
    pub kernel: String,
    /// First lines that programs say of their version.
    pub programs: Vec<String>,
}

// === impl Machine ===

impl Machine {
    /// Looks and asks.
    pub async fn look(lab: &Lab) -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = ["ostype", "osrelease"]
            .map(|name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default().trim().to_owned());
        let mut programs = Vec::new();
        for (program, argument, word) in [
            (&lab.setting.headgate, "--version", "headgate"),
            (&find("nginx")?, "-v", "nginx"),
            (&find("haproxy")?, "-v", "HAProxy"),
            (&lab.wrk, "-v", "wrk"),
            (&lab.h2load, "--version", "h2load"),
        ] {
            programs.push(version(program, argument, word).await);
        }
        Ok(Self {
            processor: model(&processors).unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: kernel.join(" "),
            programs,
        })
    }
}

/// The first line with the program's name, or the name alone where it says nothing.
async fn version(program: &Path, argument: &str, word: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output().await else { return word.to_owned() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(word)).unwrap_or(word);
    // After the version come a copyright or an address.
    line.split(" [").next().and_then(|line| line.split(" - ").next()).unwrap_or(line).trim().to_owned()
}

fn model(processors: &str) -> Option<&str> {
    let line = processors.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_model_is_the_one_the_kernel_tells() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: fpu\n";
        assert_eq!(super::model(text), Some("AMD EPYC"));
        assert_eq!(super::model(""), None);
    }
}
