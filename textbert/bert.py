"""BERT as tokenizer and as a fast model, both pytorch-pretrained-bert's."""

import hashlib
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_pretrained_bert import modeling
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from pytorch_pretrained_bert.tokenization import BertTokenizer

from textbert.archive import (
    CONFIG,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
    read_config,
    require_bert_tokenizer,
    require_vocabulary,
    vocabulary_text,
)
from textbert.files import atomic_write, explain_writing, write_text
from textbert.hub import read_bert
from textbert.parameters import require_kind
from textbert.weights import HEADS, hash_weights, match_weights, read_weights, require_sizes


def load_tokenizer(name_or_path, cache_dir="cache/"):
    """Load the tokenizer of a BERT: a pytorch_pretrained_bert.BertTokenizer with the right casing.

    `name_or_path` and the errors are those of `load_model`. The casing is what the model says of itself, else what its
    vocabulary shows: a vocabulary with capitals is a cased model's.
    """
    return build_tokenizer(*read_bert(name_or_path, cache_dir))


def build_tokenizer(files, path):
    """Return the tokenizer of a BERT's files, a dict from name to bytes; `path` is what messages call them."""
    config = read_config(files, path)
    pieces = require_vocabulary(files, path)
    try:
        settings = json.loads(files.get(TOKENIZER_CONFIG, "{}")) | (config.get("classifier") or {})
        if type(settings.get("do_lower_case", True)) is not bool:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{path}: its {TOKENIZER_CONFIG} does not say whether case matters: get it again") from None
    require_bert_tokenizer(settings, path)
    with tempfile.TemporaryDirectory() as folder, explain_writing(folder):
        vocabulary = Path(folder, VOCABULARY)
        vocabulary.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8", newline="\n")
        tokenizer = BertTokenizer(str(vocabulary), max_len=config["max_position_embeddings"])
    tokenizer.segments = config["type_vocab_size"]
    if "do_lower_case" not in settings:
        cased = any(token != token.lower() for token in tokenizer.vocab if not token.startswith("["))
        settings["do_lower_case"] = not cased
        shown = "has capitals: they stay" if cased else "has no capitals: texts are put into lower case"
        print(f"{path} does not say whether case matters, but its {VOCABULARY} {shown}")
    tokenizer.basic_tokenizer.do_lower_case = settings["do_lower_case"]
    return tokenizer


def load_model(name_or_path, cache_dir="cache/", num_labels=2):
    """Load a BERT as a pytorch_pretrained_bert.BertForSequenceClassification, ready to train.

    Parameters
    ----------
    name_or_path : a `.tar.gz` in pytorch-pretrained-bert's layout, a folder in that or the model hub's, a name whose
        archive is in `cache_dir`, or a name or hub id ("@revision" may follow) that is fetched into it
    num_labels : classes; the classifier on top is new unless the source has one of that size

    Prints which weights are new and which were left unused. The model's `fingerprint` tells what the source held: the
    SHA-256 of its settings and of the weights that are not new. Raises FileNotFoundError for a name or path that does
    not exist, CannotReadError, and ValueError for a source that is not a BERT.
    """
    model, new = _build_model(*read_bert(name_or_path, cache_dir), num_labels)
    read = {name: tensor for name, tensor in model.state_dict().items() if name not in new}
    settings = {name: getattr(model.config, name) for name in vars(BertConfig(1))}
    model.fingerprint = hashlib.sha256(f"{hash_weights(read)} {sorted(settings.items())}".encode()).hexdigest()
    return model


def build_model(files, path, num_labels, new_weights=True):
    """Return the fast model of a BERT's files; see `load_model`. Without `new_weights` a missing one is an error."""
    return _build_model(files, path, num_labels, new_weights)[0]


def _build_model(files, path, num_labels, new_weights=True):
    """Return (the model, the names of its new weights)."""
    config = read_config(files, path)
    state = read_weights(files, path)
    if "classifier.weight" in state and state["classifier.weight"].shape[:1] != (num_labels,):
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    require_sizes(config, state, path)
    model = BertForSequenceClassification(BertConfig.from_dict(config), num_labels)
    expected = model.state_dict()
    new, unused = match_weights(state, expected, path)
    if new and not new_weights:
        raise ValueError(
            f"{path} holds a BERT without a fine-tuned classifier, for it lacks {', '.join(new)} for {num_labels} "
            "classes: fine-tune it in train.ipynb, which packs cache/<TASK_NAME>.tar.gz"
        )
    model.load_state_dict({name: state.get(name, tensor) for name, tensor in expected.items()})
    print(f"BERT with {sum(p.numel() for p in model.parameters()):,} weights, read from {path}")
    if new:
        print(f"  new, and learned from your data as they should be: {', '.join(new)}")
    if heads := [name for name in unused if name.startswith(HEADS)]:
        print(f"  left out, not needed to classify: {len(heads)} weights of the pre-training heads")
    return speed_up(model), new


class FusedLayerNorm(modeling.BertLayerNorm):
    """BERT's LayerNorm in torch's one fused operation; what comes in half precision goes out in it."""

    def forward(self, x):
        # autocast would return float32 on a GPU: twice the memory to pass over, and a cast before each product
        with nullcontext() if x.dtype == torch.float32 else torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, weight.shape, weight, bias, self.variance_epsilon)


class FastDropout(torch.nn.Dropout):
    """Dropout that costs a third on a CPU, where drawing random numbers is slow.

    One draw of 64 bits decides four elements, each with a probability within 1/131,072 of `p`; the scale is that of
    the probability in use, so that expectations are exact (in bfloat16, which rounds it, to 0.2 %). The generator is
    numpy's fastest, seeded by torch's.
    """

    def forward(self, x):
        if not self.training or self.p in (0, 1) or x.device.type != "cpu":
            return super().forward(x)
        dropped = round(self.p * 65_536)  # of 65,536 equally likely values
        draws = np.random.SFC64(torch.randint(2**63 - 1, ()).item()).random_raw((x.numel() + 3) // 4)
        keep = torch.from_numpy(draws.view(np.int16))[: x.numel()].view(x.shape).ge_(dropped - 32_768)  # 0 or 1
        scale = 65_536 / (65_536 - dropped)
        if x.dtype == torch.bfloat16:  # arithmetic is slow in it, but its 16 bits can be set as those of an integer
            return x * keep.mul_(torch.tensor(scale, dtype=x.dtype).view(torch.int16)).view(x.dtype)
        return x * keep.to(x.dtype).mul_(scale)


class FusedSelfAttention(modeling.BertSelfAttention):
    """BERT's self-attention: one product for query, key and value, then torch's fused scaled dot-product attention."""

    def forward(self, hidden_states, attention_mask):
        """Attend; hidden_states of shape (batch, length, hidden), attention_mask (batch, 1, 1, length)."""
        layers = self.query, self.key, self.value
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        shape = (*hidden_states.shape[:2], 3, self.num_attention_heads, self.attention_head_size)
        q, k, v = (part.transpose(1, 2) for part in F.linear(hidden_states, weight, bias).view(shape).unbind(2))
        if self.training and self.dropout.p > 0 and q.device.type == "cpu":
            # the fused kernel for CPUs has no dropout, and torch's detour is slower than this
            scores = (q / self.attention_head_size**0.5) @ k.transpose(-1, -2)
            scores += attention_mask.to(q.dtype)
            context = self.dropout(scores.softmax(dim=-1)) @ v
        else:
            dropout = self.dropout.p if self.training else 0.0
            context = F.scaled_dot_product_attention(q, k, v, attention_mask.to(q.dtype), dropout)
        return context.transpose(1, 2).flatten(2)

    def attend_from_first(self, hidden_states, attention_mask):
        """Return what the first position sees of all, of shape (batch, 1, hidden); the inputs as those of `forward`.

        As there is one query, it goes through the weights of the key and not all positions, and the weights of the
        value come after the mean over the positions and not before it: two products less, and the same sums.
        """
        heads = self.num_attention_heads, self.attention_head_size
        key, value = self.key.weight.view(*heads, -1), self.value.weight.view(*heads, -1)  # (heads, size, hidden)
        q = self.query(hidden_states[:, 0]).view(-1, *heads) / self.attention_head_size**0.5
        wanted = torch.einsum("bhs,hsd->bhd", q, key)
        scores = wanted @ hidden_states.transpose(1, 2)  # (batch, heads, length)
        scores = scores + (q * self.key.bias.view(heads)).sum(-1, keepdim=True) + attention_mask[:, 0]
        shares = self.dropout(scores.softmax(dim=-1))
        context = torch.einsum("bhd,hsd->bhs", shares @ hidden_states, value)
        context = context + shares.sum(-1, keepdim=True) * self.value.bias.view(heads)
        return context.flatten(1)[:, None]


class FastLayer(modeling.BertLayer):
    """A layer of BERT that can be asked for its first position alone."""

    def first(self, hidden_states, attention_mask):
        """Return the output of the first position, of shape (batch, 1, hidden); the inputs as those of `forward`."""
        context = self.attention.self.attend_from_first(hidden_states, attention_mask)
        attended = self.attention.output(context, hidden_states[:, :1])
        return self.output(self.intermediate(attended), attended)


class FastClassifier(BertForSequenceClassification):
    """BERT as a classifier, which looks at [CLS] alone: so the last layer computes no other output.

    All outputs of all layers are to be had from `self.bert`, the library's BertModel.
    """

    def forward(self, input_ids, token_type_ids=None, attention_mask=None, labels=None):
        """Return logits of shape (batch, num_labels), with `labels` the loss; the inputs of shape (batch, length)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden_states = self.bert.embeddings(input_ids, token_type_ids)
        if hidden_states.is_cuda and torch.is_autocast_enabled("cuda"):
            hidden_states = hidden_states.to(torch.get_autocast_dtype("cuda"))
        blocked = (1.0 - attention_mask[:, None, None, :].to(hidden_states.dtype)) * -10_000.0  # as in BertModel
        logits = self.encode(hidden_states, blocked)
        return logits if labels is None else F.cross_entropy(logits.view(-1, self.num_labels), labels.view(-1))

    def encode(self, hidden_states, blocked):
        """Return the logits of embedded texts, of shape (batch, length, hidden); blocked: (batch, 1, 1, length)."""
        *layers, last = self.bert.encoder.layer
        for layer in layers:
            hidden_states = layer(hidden_states, blocked)
        pooled = self.bert.pooler(last.first(hidden_states, blocked))
        return self.classifier(self.dropout(pooled))


def speed_up(model):
    """Let a pytorch-pretrained-bert model compute with torch's fused operations; returns it.

    Only this instance changes. Names and values of its weights stay, and without dropout its outputs agree with the
    library's to 1e-5. Raises TypeError for a model of another library.
    """
    require_kind("model", model, modeling.BertPreTrainedModel, "load_model")
    faster = {
        modeling.BertLayerNorm: FusedLayerNorm,
        modeling.BertSelfAttention: FusedSelfAttention,
        modeling.BertLayer: FastLayer,
        BertForSequenceClassification: FastClassifier,
        torch.nn.Dropout: FastDropout,
    }
    for module in model.modules():
        module.__class__ = faster.get(type(module), type(module))
        if getattr(module, "intermediate_act_fn", None) is modeling.gelu:
            module.intermediate_act_fn = F.gelu
    return model


def copy_weights(model):
    """Return a copy of a model's weights, on the CPU, for `load_state_dict`."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def reset_pooler(model):
    """Draw BERT's pooler anew, and say so: after pre-training it is tuned to another task, or was never trained."""
    model.init_bert_weights(model.bert.pooler.dense)
    print("  new as well: bert.pooler.dense, the pooler, whatever it was trained for")


def describe_sizes(model):
    """Return a model's own part of config.json, a dict: sizes, activation and dropout.

    What else its base's config.json says, such as of precision, decoding or labels, is not true of this model.
    """
    return {"model_type": "bert"} | {name: getattr(model.config, name) for name in vars(BertConfig(1))}


def save_model(model, tokenizer, output_dir, settings):
    """Write a fine-tuned model as `config.json`, `pytorch_model.bin` and `vocab.txt`.

    `settings` is what goes into config.json under "classifier": all that a user of the model must know and nobody
    should guess. The folder can be given to the library's `from_pretrained`.
    """
    require_kind("model", model, BertForSequenceClassification, "load_model")
    require_kind("tokenizer", tokenizer, BertTokenizer, "load_tokenizer")
    with atomic_write(Path(output_dir, WEIGHTS)) as temporary, open(temporary, "wb") as file:
        torch.save(copy_weights(model), file)
    write_text(Path(output_dir, VOCABULARY), vocabulary_text(tokenizer.ids_to_tokens))
    config = describe_sizes(model) | {"classifier": settings}
    write_text(Path(output_dir, CONFIG), json.dumps(config, indent=2) + "\n")
