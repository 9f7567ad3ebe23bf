"""The same fine-tuning with transformers' Trainer as its documentation shows it."""

import tempfile
import time
from typing import Any

from support.datasets import text_set


def trainer(
    dataset: str,
    padding: str,
    most: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    max_length: int,
    judge: bool,
) -> dict[str, Any]:
    """Fine-tune minilm on the first `most` training texts; `padding` is `longest` (of a batch) or `max_length`.

    Returns `seconds` from tokenising to the last step, `texts` seen over all epochs and, with `judge`, test accuracy.
    """
    import numpy as np
    import torch
    import transformers
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from registry.families.base_models import find_base_model
    from registry.text import prepare

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    data, base = text_set(dataset), find_base_model("minilm")
    began = time.perf_counter()
    transformers.set_seed(13)
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        base.folder, num_labels=len(data.labels), dtype=torch.float32
    )
    position = {label: index for index, label in enumerate(data.labels)}

    def rows(examples: list[Any]) -> list[dict[str, Any]]:
        texts = [prepare(example.fields[0]) for example in examples]
        encoded = tokenizer(texts, truncation=True, max_length=max_length, padding=padding == "max_length")
        return [
            {name: encoded[name][index] for name in encoded} | {"labels": position[example.label]}
            for index, example in enumerate(examples)
        ]

    train = rows(data.train[:most])
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        collator = DataCollatorWithPadding(tokenizer)
        running = Trainer(model=model, args=arguments, train_dataset=train, data_collator=collator)
        running.train()
        seconds = time.perf_counter() - began
        outcome = {"seconds": seconds, "texts": len(train) * epochs}
        if not judge:
            return outcome
        answers = running.predict(rows(data.test)).predictions.argmax(axis=1)
    truth = np.array([position[example.label] for example in data.test])
    return outcome | {"accuracy": float((answers == truth).mean())}
