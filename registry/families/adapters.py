"""Low-rank adapters (Hu et al., 2021, LoRA) with PEFT: put on, written with their head, merged. Imports torch.

What a base model does not bring along (the head) is saved with the adapter, and a package counts as written only when
the model that is read back from it answers like the one that was trained: heads that PEFT was not told of are drawn
anew at each loading, without a word.
"""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from registry.families.architecture import attention_targets, checked_targets, head_modules
from registry.families.base import FamilyError
from registry.families.base_models import BaseModel
from registry.families.finetune import write_tokenizer
from registry.recipe.sections import LoraConfig as LoraSettings

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
MERGE_TOLERANCE = 1e-3  # of a logit, between the trained model and what is read back and merged


def adapt(model: PreTrainedModel, settings: LoraSettings, base: BaseModel) -> PeftModel:
    """Freeze `model`, put adapters on it and let its head learn. Raises FamilyError for layers it does not have."""
    wanted = settings.target_modules
    targets = attention_targets(model) if isinstance(wanted, str) else checked_targets(model, wanted)
    heads = head_modules(model)
    if getattr(model, "is_loaded_in_8bit", False):
        model = prepare_model_for_kbit_training(model)  # type: ignore[no-untyped-call]
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        base_model_name_or_path=base.public_id,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        modules_to_save=heads,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that GPT-2's layers are transposed, which PEFT then heeds by itself
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def eight_bit_loading(use_8bit: bool) -> dict[str, Any]:
    """What `from_pretrained` needs for a base model in 8 bits (Dettmers et al., 2022, LLM.int8()), on CUDA."""
    if not use_8bit:
        return {}
    # The names of every head, which stay as they are: they learn.
    heads = ["classifier", "pre_classifier", "score", "head", ".*pooler"]
    quantised = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=heads)  # type: ignore[no-untyped-call]
    return {"quantization_config": quantised, "dtype": torch.float16, "device_map": {"": 0}}


def write_package(
    folder: Path, model: PeftModel, tokenizer: PreTrainedTokenizerBase, base: BaseModel, max_length: int
) -> None:
    """`adapter_model.safetensors` with the head in it, `adapter_config.json`, `config.json`, the tokenizer's files.

    Raises FamilyError if the model that is read back differs from `model`.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's template of a card; the version has one of its own
    _pin_base(folder / CONFIG_NAME, model, base)
    config: Any = model.get_base_model().config
    config.__dict__.pop("auto_map", None)  # names code of the base model's authors, which nobody shall import
    config.__dict__.pop("quantization_config", None)  # how it was loaded here is of no concern to others
    config.save_pretrained(folder)
    write_tokenizer(folder, tokenizer, base, max_length)
    if not getattr(model.get_base_model(), "is_loaded_in_8bit", False):  # 8 bits round, so there they must differ
        _check_written(folder, model, base)


def load_merged(package: Path, base: BaseModel) -> PreTrainedModel:
    """The classifier in 32 bits that `package` makes of `base`, its adapters merged into the weights."""
    config = AutoConfig.from_pretrained(package, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(
        base.folder,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
        attn_implementation="eager",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged: PreTrainedModel = PeftModel.from_pretrained(model, str(package)).merge_and_unload()
    merged.train(False)
    return merged


def _pin_base(path: Path, model: PeftModel, base: BaseModel) -> None:
    """Add the base model's digest where PEFT lets one say more of it, and put lists in an order that never changes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    trained: Any = model.get_base_model()
    config["auto_mapping"] = {
        "base_model_class": type(trained).__name__,
        "parent_library": type(trained).__module__,
        "base_model_sha256": base.sha256,
    }
    config["target_modules"] = sorted(config["target_modules"])
    config["modules_to_save"] = head_modules(trained)  # PEFT adds names of heads that this model may not have
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + os.linesep, encoding="utf-8")


def _check_written(folder: Path, model: PeftModel, base: BaseModel) -> None:
    config: Any = model.get_base_model().config
    ids = torch.randint(0, config.vocab_size, (2, 8), generator=torch.Generator().manual_seed(0))
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        trained = model(input_ids=ids.to(device), attention_mask=torch.ones_like(ids).to(device)).logits.float().cpu()
        written = load_merged(folder, base)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    distance = float((trained - written).abs().max())
    if not distance <= MERGE_TOLERANCE * max(1.0, float(trained.abs().max())):
        raise FamilyError(
            f"The adapter that was written answers otherwise than the trained one, by {distance:.2g}; this base model "
            "cannot be adapted, take another one such as minilm or set the type to encoder."
        )
