#![allow(clippy::unwrap_used)]
use allpet_train::*;
use candle_core::{Device, Tensor, Var};
use std::collections::BTreeMap;
#[test]
fn speed() {
    let n = 10_000_000;
    let w = Var::from_tensor(&Tensor::randn(0f32, 1., (1000, n / 1000), &Device::Cpu).unwrap()).unwrap();
    let g = BTreeMap::from([(
        "w".to_owned(),
        Tensor::randn(0f32, 1., (1000, n / 1000), &Device::Cpu).unwrap(),
    )]);
    let mut a = AdamW::new(
        AdamWConfig::default(),
        &BTreeMap::from([("w".to_owned(), w.clone())]),
    )
    .unwrap();
    let mut best = [f64::MAX; 3];
    for i in 0..12 {
        let u = Update {
            step: i,
            rate: 1e-3,
            gradient_factor: 1.0,
            ema_decay: 0.9,
        };
        let t = std::time::Instant::now();
        a.update(&g, &u).unwrap();
        best[0] = best[0].min(t.elapsed().as_secs_f64());
        let t = std::time::Instant::now();
        global_norm(g.values()).unwrap();
        best[1] = best[1].min(t.elapsed().as_secs_f64());
        let t = std::time::Instant::now();
        a.update_by_tensors(&g, &u).unwrap();
        best[2] = best[2].min(t.elapsed().as_secs_f64());
    }
    println!("fused, norm, tensors (s): {best:?}");
    let one = BTreeMap::from([("w".to_owned(), w.as_tensor().clone())]);
    let c = Checkpoint {
        step: 1,
        identity: Identity::default(),
        model: one.clone(),
        m: one.clone(),
        v: one.clone(),
        ema: one,
    };
    let folder = tempfile::tempdir().unwrap();
    let t = std::time::Instant::now();
    checkpoint::save(folder.path(), &c).unwrap();
    println!("save 160 MB {:?}", t.elapsed());
    let t = std::time::Instant::now();
    checkpoint::load(&folder.path().join(checkpoint::FILE), &Device::Cpu).unwrap();
    println!("load 160 MB {:?}", t.elapsed());
}
