//! From a sequence that shows a difference to the shortest that still shows one.
//!
//! First ever smaller runs of steps are left out, then parameters, bodies and headers of what is
//! left, as long as something differs; which difference it is may change on the way.

use crate::request::Step;

/// Cuts `steps` down while `differs` says that they still show it.
pub(crate) fn shrink(steps: Vec<Step>, mut differs: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = drop_steps(steps, &mut differs);
    for at in 0..steps.len() {
        simplify(&mut steps, at, &mut differs);
    }
    steps
}

/// Leaves out ever smaller runs of steps.
pub(crate) fn drop_steps<T: Clone>(
    mut steps: Vec<T>,
    mut differs: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut run = steps.len() / 2;
    while run > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..steps.len().min(at + run));
            if differs(&fewer) { steps = fewer } else { at += run }
        }
        run /= 2;
    }
    steps
}

/// Cuts one step down.
fn simplify(steps: &mut Vec<Step>, at: usize, still: &mut impl FnMut(&[Step]) -> bool) {
    let mut cuts = 0;
    loop {
        let mut fewer = steps.clone();
        if !cut(&mut fewer[at], cuts) {
            return;
        }
        if still(&fewer) { *steps = fewer } else { cuts += 1 }
    }
}

/// Takes the thing of this number out of a step; false when there are not as many.
fn cut(step: &mut Step, number: usize) -> bool {
    let request = step.request_mut();
    let (queries, headers) = (request.query.len(), request.headers.len());
    if number < queries {
        request.query.remove(number);
    } else if number < queries + headers {
        request.headers.remove(number - queries);
    } else if let Some(body) = &mut request.body {
        match number - queries - headers {
            0 => request.body = None,
            piece if piece <= body.pieces.len() => _ = body.pieces.remove(piece - 1),
            _ => return false,
        }
    } else {
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::drop_steps;

    #[test]
    fn only_what_shows_it_stays() {
        let differs = |steps: &[u8]| steps.contains(&3) && steps.contains(&17);
        assert_eq!(drop_steps((0..40).collect(), differs), [3, 17]);
        assert_eq!(drop_steps(vec![1], |_| true), [1]);
    }
}
