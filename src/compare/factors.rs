//! Factors: a LoRA's two matrices as one update, and norms of products without the products.
//!
//! Layer 2 (decisions): pure. A matrix is `r` vectors: the rows of A, the columns of B. Only the vectors' inner
//! products are kept, so that B·A, which is as large as the layer it adapts, never exists. Must never compare
//! A with A and B with B: (A·G, G⁻¹·B) is the same update for any invertible G.

/// Which of the two matrices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// The one next to the input.
    A,
    /// The one next to the output.
    B,
}

/// The endings by which the matrices are known, with the side on which the rank stands in each: peft's, and
/// those of mlx, whose matrices lie transposed.
const ENDINGS: &[(&str, Half, RankAxis)] = &[
    (".lora_A.weight", Half::A, RankAxis::First),
    (".lora_A.default.weight", Half::A, RankAxis::First),
    (".lora_B.weight", Half::B, RankAxis::Last),
    (".lora_B.default.weight", Half::B, RankAxis::Last),
    (".lora_embedding_A", Half::A, RankAxis::First),
    (".lora_embedding_B", Half::B, RankAxis::Last),
    (".lora_a", Half::A, RankAxis::Last),
    (".lora_b", Half::B, RankAxis::First),
];

/// Which dimension of a matrix is the rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RankAxis {
    /// The outermost: each vector lies in one piece.
    First,
    /// The second: the vectors' elements lie in turn.
    Last,
}

/// The module that a tensor's name belongs to, and which matrix of it the tensor is.
pub fn half(name: &str) -> Option<(&str, Half, RankAxis)> {
    ENDINGS.iter().find_map(|(ending, half, rank)| {
        let module = name.strip_suffix(ending)?;
        Some((module.strip_prefix("base_model.model.").unwrap_or(module), *half, *rank))
    })
}

/// Whether a tensor's name is that of one of a module's matrices.
pub fn is_of(name: &str, module: &str) -> bool {
    half(name).is_some_and(|(of, ..)| of == module)
}

/// Names under which the base may have what an adapter's tensor replaces, the likeliest first.
pub fn base_names(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if let Some(rest) = name.strip_prefix("base_model.model.") {
        names.push(rest.to_owned());
        names.push(rest.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", "."));
        names.push(rest.replace(".original_module.", "."));
    }
    names.dedup();
    names
}

/// A matrix as `r` vectors of `length` elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vectors {
    /// How many.
    pub r: usize,
    /// Elements of each.
    pub length: usize,
    /// Whether each lies in one piece.
    pub rank: RankAxis,
}

impl Vectors {
    /// The largest rank whose inner products are kept: two by two of them, in doubles, are 32 MiB.
    pub const MAX_RANK: usize = 1024;

    /// How a tensor of this shape is seen; `None` where it is no matrix, or its rank is beyond [`Self::MAX_RANK`].
    pub fn of(shape: &[u64], rank: RankAxis) -> Option<Self> {
        let all = crate::weights::elements(shape)?;
        let r = match (rank, shape) {
            (RankAxis::First, [r, _, ..]) => *r,
            // A convolution's B is [out, r, 1, 1].
            (RankAxis::Last, [_, r, rest @ ..]) if rest.iter().all(|n| *n == 1) => *r,
            _ => return None,
        };
        let r = usize::try_from(r).ok().filter(|r| (1..=Self::MAX_RANK).contains(r))?;
        Some(Vectors { r, length: usize::try_from(all).ok()? / r, rank })
    }

    /// Elements in each block of vectors: what both sides' blocks need stays under 8 MiB.
    pub fn block(&self) -> usize {
        ((1 << 18) / self.r).clamp(64, 1 << 14).next_multiple_of(LANES)
    }
}

/// One module's four tensors: claimed and replayed A, claimed and replayed B.
#[derive(Clone, Copy, Debug)]
pub struct Pairing<'a> {
    /// The module's name.
    pub module: &'a str,
    /// A and how it is seen.
    pub a: (&'a str, Vectors),
    /// B and how it is seen.
    pub b: (&'a str, Vectors),
}

/// The modules that both sides have with one shape: `tensors` are those of one set in one type and shape on both
/// sides, by name.
pub fn pairings<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [u64])>) -> Vec<Pairing<'a>> {
    let mut halves: std::collections::BTreeMap<&str, [Option<(&str, Vectors)>; 2]> = Default::default();
    for (name, shape) in tensors {
        if let Some((module, half, rank)) = half(name)
            && let Some(vectors) = Vectors::of(shape, rank)
        {
            halves.entry(module).or_default()[usize::from(half == Half::B)] = Some((name, vectors));
        }
    }
    let both = halves.into_iter().filter_map(|(module, [a, b])| {
        let (a, b) = (a?, b?);
        (a.1.r == b.1.r).then_some(Pairing { module, a, b })
    });
    both.collect()
}

const LANES: usize = 8;

/// Inner products of `n` vectors with each other, added up block by block.
#[derive(Clone, Debug)]
pub struct Gram {
    n: usize,
    sums: Vec<f64>,
}

impl Gram {
    /// Of `n` vectors, nothing seen yet.
    pub fn new(n: usize) -> Self {
        Gram { n, sums: vec![0.0; n * n] }
    }

    /// Adds a block: `n` vectors one behind the other, of `width` elements each, a multiple of eight.
    pub fn add(&mut self, block: &[f64], width: usize) {
        let row = |at: usize| block[at * width..(at + 1) * width].as_chunks::<LANES>().0;
        // Two by two at a time: each element that is read counts twice.
        for i in (0..self.n).step_by(2) {
            let (a0, a1) = (row(i), row((i + 1).min(self.n - 1)));
            for j in (0..=i).step_by(2) {
                let (b0, b1) = (row(j), row((j + 1).min(self.n - 1)));
                let mut lanes = [[0.0f64; LANES]; 4];
                for (((a0, a1), b0), b1) in a0.iter().zip(a1).zip(b0).zip(b1) {
                    for at in 0..LANES {
                        lanes[0][at] += a0[at] * b0[at];
                        lanes[1][at] += a0[at] * b1[at];
                        lanes[2][at] += a1[at] * b0[at];
                        lanes[3][at] += a1[at] * b1[at];
                    }
                }
                let [s00, s01, s10, s11] = lanes.map(|lanes| lanes.iter().sum::<f64>());
                self.put(i, j, s00);
                if j + 1 < self.n && i != j {
                    self.put(i, j + 1, s01);
                }
                if i + 1 < self.n {
                    self.put(i + 1, j, s10);
                    if j + 1 < self.n {
                        self.put(i + 1, j + 1, s11);
                    }
                }
            }
        }
    }

    fn put(&mut self, i: usize, j: usize, sum: f64) {
        self.sums[i * self.n + j] += sum;
        if i != j {
            self.sums[j * self.n + i] += sum;
        }
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.sums[i * self.n + j]
    }
}

/// Squares and product of the two updates and of their difference, as [`super::Distance::of`] takes them.
///
/// `a` holds the inner products of the claimed A's vectors followed by those of ΔA = A′ − A, `b` those of the
/// claimed B's followed by ΔB. With them B′A′ − BA = B′·ΔA + ΔB·A = [B + ΔB, ΔB]·[ΔA; A], which loses nothing
/// where the two are near each other in the same form.
pub fn products(a: &Gram, b: &Gram) -> [f64; 4] {
    let r = a.n / 2;
    // ⟨XY, ZW⟩ = Σ ⟨x_i, z_j⟩ ⟨y_i, w_j⟩, with X and Z made of columns and Y and W of rows.
    let (mut difference, mut claimed, mut replayed, mut product) = (0.0, 0.0, 0.0, 0.0);
    for i in 0..r {
        for j in 0..r {
            let (aa, ad, da, dd) = (a.at(i, j), a.at(i, r + j), a.at(r + i, j), a.at(r + i, r + j));
            let (bb, be, eb, ee) = (b.at(i, j), b.at(i, r + j), b.at(r + i, j), b.at(r + i, r + j));
            // ⟨B′_i, B′_j⟩, ⟨B′_i, ΔB_j⟩ and ⟨B_i, B′_j⟩, and the same of A.
            let (b_new, b_new_delta, b_old_new) = (bb + be + eb + ee, be + ee, bb + be);
            let (a_new, a_old_new) = (aa + ad + da + dd, aa + ad);
            // (B′·ΔA, B′·ΔA) + 2 (B′·ΔA, ΔB·A) + (ΔB·A, ΔB·A)
            difference += b_new * dd + 2.0 * b_new_delta * da + ee * aa;
            claimed += bb * aa;
            replayed += b_new * a_new;
            product += b_old_new * a_old_new;
        }
    }
    [difference, claimed, replayed, product]
}

/// The same for two equal updates: `a` and `b` hold the claimed vectors alone.
pub fn unchanged(a: &Gram, b: &Gram) -> [f64; 4] {
    let square = a.sums.iter().zip(&b.sums).map(|(a, b)| a * b).sum();
    [0.0, square, square, square]
}
