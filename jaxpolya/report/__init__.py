"""Tables, plots and pages that a person reads at the end of a run.

Everything here reads one plain object, the run's `results.json`, and knows nothing of models or devices. What a run did not do
is `null` or absent, and is then left out of the report:

    run         {name, model, fingerprint, origin, …}  provenance, shown as it is (nested objects too); origin: {base_model, license, …}
    config      {…}                                    the resolved configuration
    best        arm                                    with the highest mean pass@1 on the first question set
    models      {arm: checkpoint}                      a stage's as a path from the run's directory
    arms        {arm: {eval, sft, rl, doses}}              in the order in which they are shown
      eval      {question set: {questions, samples,
                  pass: {"1": {mean, low, high}, …},   shares of 1; every k up to 64, then powers of two and the last
                  majority: {mean, low, high},         absent for programs
                  greedy: {mean, low, high},           only with `eval.greedy`
                  versus_base: {"1": {…}, …},          optional: paired differences from the arm `base`, `majority` and `greedy` too
                  truncated, unparseable, harness_error, cut_short, tokens_mean,
                  diversity: {questions, samples, length, kernel, distinct_1 … distinct_3, self_bleu, vendi,
                              label_entropy (nats): each {mean, low, high}} | null,
                  composition: {judge, questions, solutions, rate: {mean, low, high}, by_heuristic: {key: share}} | null}}
      sft       {rows, tokens, steps, loss_first, loss_last, heldout_first, heldout_last} | null
      rl        {steps: [{step, reward, length, truncated, entropy, clip, kl, grad_norm, no_signal, cut_short}, …],
                 without_signal: no step had a gradient} | null
      doses     {step: {question set: as `eval`, without diversity and composition}}, only with `rl.evaluate_at`: the arm after so much RL
    selection   {kind: {rows, questions, per_question: {"1": questions with one row, …}, by_heuristic: {key: rows}}}
    contamination  {train | rl: {n, dropped, questions, shared, pairs, sets: {question set: {shared, pairs}}, examples: [Overlap]}}
    audit       {stage: {all, first, last, warnings, shown}}   of the stages that judge; absent in runs of versions without
      all, first, last   shares and means over all responses, and of RL over the first and the last quarter of the steps
                {responses, paid, length, refused, numbers, not_number, literals, not_literal, contradictory, in_question, copied, checked,
                 unconfirmed, examples, groups, group, distinct_responses, distinct_answers} (`evaluate.audit.summarise`)
      warnings  [sentence, …]
      shown     [{end: first | last, step, question, gold, answer, response}, …], paid responses of the ends of RL
    left_out    {question set, or stage: {reason: number}}  questions, traces and rows that took no part
    generation  {heuristic: {samples, correct, truncated}}
    stages      [{name, seconds, tokens, tokens_per_second}, …]
"""
