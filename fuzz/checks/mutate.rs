//! A small blind mutator, for a bounded run without a fuzzing engine: the same inputs each time.

/// Calls `check` with each entry of the corpus, then with `count` changed ones.
pub(crate) fn run(corpus: &[Vec<u8>], count: u32, check: impl Fn(&[u8])) {
    for entry in corpus {
        check(entry);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..count {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, corpus, &mut random);
        }
        check(&input);
    }
}

/// Reads the files of fuzz/corpus/`name`, in order of their names.
pub(crate) fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let entries = std::fs::read_dir(&directory).expect("the corpus is checked in");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    paths.sort();
    let corpus: Vec<_> = paths
        .iter()
        .map(|path| std::fs::read(path).expect("it is a file"))
        .collect();
    assert!(!corpus.is_empty(), "{} is empty", directory.display());
    corpus
}

/// Bytes at which decoders change their minds.
const EDGES: [u8; 12] = [0, 1, 2, 4, 6, 8, 0x2c, 0x3c, 0x45, 0x7f, 0x80, 0xff];

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(7) {
        0 => input.truncate(at),
        1 => input.insert(at, EDGES[random.below(EDGES.len())]),
        2 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        3 => {
            let end = input.len().min(at + 1 + random.below(16));
            let part = input[at..end].to_vec();
            input.splice(at..at, part);
        }
        4 => {
            let end = input.len().min(at + 1 + random.below(16));
            input.drain(at..end);
        }
        5 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = EDGES[random.below(EDGES.len())];
            }
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// xorshift64: enough to vary inputs.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
