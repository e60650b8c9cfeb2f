//! Every operator's kernels against the CPU's operator.

use super::{AMPLE, Bench, Cpu, Elements, Floats, RISING, check, host, on, worst};
use crate::conv::Sizes;
use crate::cuda::{Products, UNITS, attention, channel_attention, conv, layer_norm, moves, norm};
use crate::{
    Window, add, depth_to_space, gelu_gate, group_norm, grouped_conv2d, space_to_depth, upsample_nearest,
};
use allpet_kernel::Element;
use std::collections::HashSet;

/// Batch, channels, height, width, groups, own scale and shift, SiLU.
type GroupCase = (usize, usize, usize, usize, usize, bool, bool);

const GROUPS: [GroupCase; 6] = [
    (2, 6, 5, 7, 3, false, true),
    (1, 5, 1, 1, 1, true, true),
    (3, 7, 9, 1, 7, true, false),
    (1, 3, 41, 53, 1, false, true),
    (2, 4, 3, 3, 2, true, true),
    // Groups and planes of several chunks, the last of them not full.
    (1, 2, 65, 127, 1, true, true),
];

fn group_sizes(case: GroupCase) -> (norm::GroupSizes, Vec<usize>, Vec<usize>) {
    let (batch, channels, h, w, groups, own, silu) = case;
    let sizes = norm::GroupSizes {
        batch,
        groups,
        per_group: channels / groups,
        pixels: h * w,
        own,
        silu,
    };
    let affine = if own {
        vec![batch, channels]
    } else {
        vec![channels]
    };
    (sizes, vec![batch, channels, h, w], affine)
}

/// Forward and backward of a case, gradients of scale and shift added over samples where these share them.
fn group_norm_on(bench: &Bench<'_>, case: GroupCase, cpu: &Cpu) -> Vec<Vec<f32>> {
    let (sizes, _, affine) = group_sizes(case);
    let (batch, channels) = (case.0, case.1);
    let [x, scale, shift] = [&cpu.inputs[0], &cpu.inputs[1], &cpu.inputs[2]];
    let mut all = on(
        bench,
        [(x, Elements), (scale, Floats), (shift, Floats)],
        [(x.len(), Elements)],
        |m, inputs, [y]| norm::forward(m, &sizes, inputs, y),
    );
    let small = (batch * channels, Floats);
    let mut gradients = on(
        bench,
        [
            (x, Elements),
            (scale, Floats),
            (shift, Floats),
            (&cpu.dy, Elements),
        ],
        [(x.len(), Elements), small, small],
        |m, [x, scale, shift, dy], outputs| norm::backward(m, &sizes, [x, scale, shift], dy, outputs),
    );
    if affine.len() == 1 {
        for each in &mut gradients[1..] {
            let sum = |c: usize| each.iter().skip(c).step_by(channels).sum();
            *each = (0..channels).map(sum).collect();
        }
    }
    all.append(&mut gradients);
    all
}

fn group_norm_by_cpu(case: GroupCase) -> Cpu {
    let (_, shape, affine) = group_sizes(case);
    Cpu::new(&[&shape, &affine, &affine], |t| {
        group_norm(&t[0], &t[1], &t[2], case.4, case.6)
    })
}

fn all_of(cpu: &Cpu) -> Vec<Vec<f32>> {
    let mut all = vec![cpu.y.clone()];
    all.extend(cpu.gradients.iter().cloned());
    all
}

#[test]
fn group_norms() {
    for case in GROUPS {
        let cpu = group_norm_by_cpu(case);
        check(&format!("group norm {case:?}"), &all_of(&cpu), |bench| {
            group_norm_on(bench, case, &cpu)
        });
    }
}

#[test]
fn a_coarse_root_is_seen() {
    // The control of all comparisons: a root that is off by one in ten thousand.
    let coarse = host(
        Element::F32,
        "#include <math.h>\n#define sqrtf(x) (1.0001f * (sqrtf)(x))\n",
        false,
    );
    let cpu = group_norm_by_cpu(GROUPS[0]);
    let bench = Bench {
        host: &coarse,
        limit: AMPLE,
    };
    let got = group_norm_on(&bench, GROUPS[0], &cpu);
    assert!(worst(&got[0], &cpu.y) > 2e-5);
}

#[test]
fn layer_norms() {
    for (rows, channels) in [(1, 1), (3, 5), (9, 64), (700, 33), (17, 100)] {
        let cpu = Cpu::new(&[&[rows, channels], &[channels], &[channels]], |t| {
            crate::layer_norm(&t[0], &t[1], &t[2])
        });
        check(
            &format!("layer norm {rows} x {channels}"),
            &all_of(&cpu),
            |bench| {
                let [x, weight, bias] = [&cpu.inputs[0], &cpu.inputs[1], &cpu.inputs[2]];
                let size = [rows, channels];
                let mut all = on(
                    bench,
                    [(x, Elements), (weight, Floats), (bias, Floats)],
                    [(x.len(), Elements)],
                    |m, inputs, [y]| layer_norm::forward(m, size, inputs, y),
                );
                let gradients = on(
                    bench,
                    [(x, Elements), (&cpu.dy, Elements), (weight, Floats)],
                    [(x.len(), Elements), (2 * channels, Floats)],
                    |m, inputs, outputs| layer_norm::backward(m, size, inputs, outputs),
                );
                let (dweight, dbias) = gradients[1].split_at(channels);
                all.extend([gradients[0].clone(), dweight.to_vec(), dbias.to_vec()]);
                all
            },
        );
    }
}

/// `(b, c_in, c_out, h, w, k)`, stride, padding, groups.
type ConvCase = ([usize; 6], usize, usize, usize);

const CONVS: [ConvCase; 12] = [
    ([2, 3, 5, 6, 7, 3], 1, 1, 1),
    ([1, 9, 10, 5, 33, 3], 1, 1, 1),
    ([3, 4, 6, 5, 3, 1], 1, 0, 1),
    ([2, 4, 6, 5, 4, 1], 2, 0, 2),
    ([2, 2, 3, 7, 9, 3], 2, 1, 1),
    ([1, 2, 3, 8, 9, 3], 2, 1, 1),
    ([5, 2, 2, 8, 1, 2], 1, 1, 1),
    ([2, 4, 6, 5, 6, 3], 1, 1, 2),
    // Depthwise.
    ([2, 4, 4, 5, 19, 3], 1, 1, 4),
    ([3, 2, 2, 6, 7, 5], 1, 2, 2),
    ([2, 3, 3, 6, 7, 3], 2, 1, 3),
    ([1, 3, 3, 6, 6, 3], 1, 0, 3),
];

fn conv_sizes(case: ConvCase) -> (Sizes, [Vec<usize>; 3]) {
    let ([b, ci, co, h, w, k], stride, padding, groups) = case;
    let shapes = [vec![b, ci, h, w], vec![co, ci / groups, k, k], vec![co]];
    let sizes = Sizes::new(&shapes[0], &shapes[1], Window { stride, padding }, groups).unwrap();
    (sizes, shapes)
}

fn conv_by_cpu(case: ConvCase) -> Cpu {
    let (sizes, [x, w, b]) = conv_sizes(case);
    Cpu::new(&[&x, &w, &b], |t| {
        grouped_conv2d(&t[0], &t[1], &t[2], sizes.window, case.3)
    })
}

fn conv_on(bench: &Bench<'_>, case: ConvCase, cpu: &Cpu) -> Vec<Vec<f32>> {
    let (s, _) = conv_sizes(case);
    let [x, w, b] = [&cpu.inputs[0], &cpu.inputs[1], &cpu.inputs[2]];
    let mut all = on(
        bench,
        [(x, Elements), (w, Floats), (b, Floats)],
        [(cpu.y.len(), Elements)],
        |m, inputs, [y]| conv::forward(m, &s, inputs, y),
    );
    let outputs = [(x.len(), Elements), (w.len(), Floats), (b.len(), Floats)];
    let inputs = [(&x[..], Elements), (w, Floats), (&cpu.dy, Elements)];
    all.extend(on(bench, inputs, outputs, |m, [x, w, dy], [dx, dw, db]| {
        conv::input_gradient(m, &s, [dy, w], dx)?;
        conv::weight_gradient(m, &s, [x, dy], dw)?;
        conv::channel_sums(m, [s.batch, s.groups * s.c_out, s.out_pixels()], dy, db)
    }));
    all
}

#[test]
fn convolutions() {
    for case in CONVS {
        let cpu = conv_by_cpu(case);
        check(&format!("convolution {case:?}"), &all_of(&cpu), |bench| {
            conv_on(bench, case, &cpu)
        });
    }
}

#[test]
fn a_window_that_is_off_is_seen() {
    let shifted = ([2, 3, 5, 6, 7, 3], 1, 1, 1);
    let mut cpu = conv_by_cpu(shifted);
    cpu.inputs[1].rotate_right(1);
    let bench = Bench {
        host: &RISING,
        limit: AMPLE,
    };
    let got = conv_on(&bench, shifted, &cpu);
    assert!(worst(&got[0], &cpu.y) > 1e-2 && worst(&got[1], &cpu.gradients[0]) > 1e-2);
}

#[test]
fn attentions() {
    // Samples, heads, channels of a head, height, width; more samples than heads and the reverse; more than one round
    // of queries, the last of them not full.
    for (batch, heads, d, h, w) in [
        (1, 1, 1, 1, 1),
        (2, 3, 5, 3, 7),
        (3, 2, 4, 5, 1),
        (1, 2, 7, 9, 9),
        (2, 1, 33, 5, 15),
    ] {
        let c = heads * d;
        let sizes = attention::AttentionSizes {
            batch,
            heads,
            d,
            pixels: h * w,
        };
        let cpu = Cpu::new(&[&[batch, 3 * c, h, w]], |t| crate::attention(&t[0], heads));
        let x = &cpu.inputs[0];
        let name = format!("attention {batch} x {heads} x {d} x {h} x {w}");
        check(&name, &all_of(&cpu), |bench| {
            let mut all = on(
                bench,
                [(x, Elements)],
                [(cpu.y.len(), Elements)],
                |m, [x], [y]| attention::forward(m, &sizes, x, y),
            );
            let inputs = [(&x[..], Elements), (&cpu.dy, Elements)];
            all.extend(on(bench, inputs, [(x.len(), Elements)], |m, inputs, [dx]| {
                attention::backward(m, &sizes, inputs, dx)
            }));
            all
        });
    }
}

#[test]
fn channel_attentions() {
    for (batch, heads, d, h, w) in [
        (1, 1, 1, 1, 3),
        (2, 2, 3, 3, 5),
        (3, 1, 40, 5, 9),
        (1, 3, 4, 7, 1),
    ] {
        let c = heads * d;
        let sizes = channel_attention::ChannelSizes {
            batch,
            heads,
            d,
            pixels: h * w,
        };
        let cpu = Cpu::new(&[&[batch, 3 * c, h, w], &[heads]], |t| {
            crate::channel_attention(&t[0], &t[1])
        });
        let (x, t) = (&cpu.inputs[0], &cpu.inputs[1]);
        let name = format!("channel attention {batch} x {heads} x {d} x {h} x {w}");
        // A weight of one has no slope: what is left of the gradient is rounding.
        if d == 1 {
            continue;
        }
        check(&name, &all_of(&cpu), |bench| {
            let mut all = on(
                bench,
                [(x, Elements), (t, Floats)],
                [(cpu.y.len(), Elements)],
                |m, inputs, [y]| channel_attention::forward(m, &sizes, inputs, y),
            );
            all.extend(on(
                bench,
                [(x, Elements), (t, Floats), (&cpu.dy, Elements)],
                [(x.len(), Elements), (heads, Floats)],
                |m, inputs, outputs| channel_attention::backward(m, &sizes, inputs, outputs),
            ));
            all
        });
    }
}

#[test]
fn a_coarse_exponential_is_seen() {
    let coarse = host(
        Element::F32,
        "#include <math.h>\n#define expf(x) (expf)(1.0001f * (x))\n",
        false,
    );
    let cpu = Cpu::new(&[&[1, 6, 9, 9]], |t| crate::attention(&t[0], 1));
    let sizes = attention::AttentionSizes {
        batch: 1,
        heads: 1,
        d: 2,
        pixels: 81,
    };
    let bench = Bench {
        host: &coarse,
        limit: AMPLE,
    };
    let got = on(
        &bench,
        [(&cpu.inputs[0], Elements)],
        [(cpu.y.len(), Elements)],
        |m, [x], [y]| attention::forward(m, &sizes, x, y),
    );
    assert!(worst(&got[0], &cpu.y) > 1e-5);
}

#[test]
fn moves() {
    let (b, c, h, w) = (2, 3, 5, 7);
    let cpu = Cpu::new(&[&[b, c, h, w]], |t| upsample_nearest(&t[0]));
    let x = &cpu.inputs[0];
    let small = [x.len(), w];
    check("upsampling", &all_of(&cpu), |bench| {
        let outputs = [(cpu.y.len(), Elements), (x.len(), Elements)];
        let inputs = [(&x[..], Elements), (&cpu.dy, Elements)];
        on(bench, inputs, outputs, |m, [x, dy], [y, dx]| {
            moves::double(m, small, x, y)?;
            moves::sum_of_fours(m, small, dy, dx)
        })
    });
    for f in [2, 3] {
        let shape = [b, c, 2 * f, 5 * f];
        let cpu = Cpu::new(&[&shape], |t| space_to_depth(&t[0], f));
        let x = &cpu.inputs[0];
        let length = x.len();
        let inputs = [(&x[..], Elements), (&cpu.dy, Elements)];
        let outputs = [(length, Elements); 2];
        check(&format!("space to depth by {f}"), &all_of(&cpu), |bench| {
            on(bench, inputs, outputs, |m, [x, dy], [y, dx]| {
                moves::move_blocks(m, length, [f, 2, 5], false, x, y)?;
                moves::move_blocks(m, length, [f, 2, 5], true, dy, dx)
            })
        });
        let back = Cpu::new(&[&[b, c * f * f, 2, 5]], |t| depth_to_space(&t[0], f));
        let inputs = [(&back.inputs[0][..], Elements)];
        check(
            &format!("depth to space by {f}"),
            std::slice::from_ref(&back.y),
            |bench| {
                on(bench, inputs, [(length, Elements)], |m, [x], [y]| {
                    moves::move_blocks(m, length, [f, 2, 5], true, x, y)
                })
            },
        );
    }
}

#[test]
fn joins() {
    let (b, h, w) = (3, 5, 3);
    let (cx, cy) = (2, 5);
    let cpu = Cpu::new(&[&[b, cx, h, w], &[b, cy, h, w]], |t| {
        crate::concat_channels(&t[0], &t[1])
    });
    let (x, y) = (&cpu.inputs[0], &cpu.inputs[1]);
    let (nx, ny) = (cx * h * w, cy * h * w);
    check("concatenation", &all_of(&cpu), |bench| {
        let inputs = [(&x[..], Elements), (y, Elements), (&cpu.dy, Elements)];
        let outputs = [
            (x.len() + y.len(), Elements),
            (x.len(), Elements),
            (y.len(), Elements),
        ];
        on(bench, inputs, outputs, |m, [x, y, dz], [z, dx, dy]| {
            moves::copy_runs(m, [x, z], [b, nx], [nx, nx + ny])?;
            moves::copy_runs(m, [y, m.behind(z, nx)], [b, ny], [ny, nx + ny])?;
            moves::copy_runs(m, [dz, dx], [b, nx], [nx + ny, nx])?;
            moves::copy_runs(m, [m.behind(dz, nx), dy], [b, ny], [nx + ny, ny])
        })
    });
    let cpu = Cpu::new(&[&[b, cx, h, w], &[b, cx, h, w]], |t| add(&t[0], &t[1]));
    let (x, y) = (&cpu.inputs[0], &cpu.inputs[1]);
    check("sum", std::slice::from_ref(&cpu.y), |bench| {
        let inputs = [(&x[..], Elements), (y, Elements)];
        on(bench, inputs, [(x.len(), Elements)], |m, both, [z]| {
            moves::add(m, x.len(), both, z)
        })
    });
    let cpu = Cpu::new(&[&[b, 2 * cx, h, w]], |t| gelu_gate(&t[0]));
    let x = &cpu.inputs[0];
    check("gate", &all_of(&cpu), |bench| {
        let inputs = [(&x[..], Elements), (&cpu.dy, Elements)];
        let outputs = [(cpu.y.len(), Elements), (x.len(), Elements)];
        on(bench, inputs, outputs, |m, [x, dy], [y, dx]| {
            moves::gate(m, [b, nx], x, y)?;
            moves::gate_gradient(m, [b, nx], [x, dy], dx)
        })
    });
}

/// Every kernel is started by some operator, and every name that one asks for is a kernel's.
#[test]
fn every_kernel_is_started() {
    let of = |text: &str, mark: &str| -> HashSet<String> {
        let names = text.split(mark).skip(1);
        names
            .map(|rest| rest.split([',', '"']).next().unwrap().trim().to_owned())
            .collect()
    };
    let kernels: HashSet<String> = UNITS
        .iter()
        .flat_map(|unit| ["KERNEL(", "ONE_PHASE("].map(|mark| of(unit.text, mark)))
        .flatten()
        .collect();
    let sources = [
        include_str!("../mod.rs"),
        include_str!("../norm.rs"),
        include_str!("../layer_norm.rs"),
        include_str!("../conv.rs"),
        include_str!("../attention.rs"),
        include_str!("../channel_attention.rs"),
        include_str!("../moves.rs"),
    ];
    for kernel in &kernels {
        let name = format!("\"{kernel}\"");
        assert!(sources.iter().any(|s| s.contains(&name)), "{kernel}");
    }
    assert!(kernels.len() > 25, "{}", kernels.len());
}
