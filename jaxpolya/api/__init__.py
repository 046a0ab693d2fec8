"""The Python interface: each step of the method alone, on records of one's own, and whole runs.

    import jaxpolya

    model = jaxpolya.load("weights/SmolLM2-135M-Instruct.Q4_1.gguf")
    samples = jaxpolya.generate(model, questions, heuristics="all", samples=4)
    rows = jaxpolya.select(model, samples, questions, n=4)
    tuned = jaxpolya.sft(model, rows, learning_rate=1e-5)
    trained = jaxpolya.rl(tuned.model, questions, steps=20, prompts=8, group=8, learning_rate=1e-6)
    print(jaxpolya.evaluate(trained.model, others, samples=16).measures.pass_[1])
    jaxpolya.export(trained.model, "my-model")

Models are handed on in memory, records are dictionaries or the types of `jaxpolya.records`, and every result is a value. A call
starts afresh and keeps nothing on disk unless it is told where; what is to survive a kill is a configuration's business
(`jaxpolya.run`). Arguments that aren't named in a signature are fields of the configuration's models, with the same meaning and the
same checks.

    model       load, Model: logits, generate from prompts
    questions   what a caller's records become
    asking      generate, evaluate
    selecting   select
    training    sft, rl
    leaving     export
    running     run
    verifying   verify_response, verify_responses; as free of jax as the verifier
"""
