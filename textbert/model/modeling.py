"""pytorch-pretrained-bert's BERT with fused kernels: the same weights and outputs in less time.

Shapes in comments: B examples in a batch, L tokens, H heads, S = D / H numbers for each head, D numbers in all.
"""

from contextlib import nullcontext
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_pretrained_bert import modeling
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.utils.validation import check_type

Model = TypeVar("Model", bound=torch.nn.Module)


class FusedLayerNorm(modeling.BertLayerNorm):
    """BERT's LayerNorm in torch's single fused operation, in the precision of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize x, of shape (..., D), over its last dimension."""
        # autocast would return float32 on a GPU: twice the memory traffic, and a cast before each matmul
        with nullcontext() if x.dtype == torch.float32 else torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, weight.shape, weight, bias, self.variance_epsilon)


class FastDropout(torch.nn.Dropout):
    """Dropout at a third of the cost on a CPU, where generating random numbers is slow.

    A random number of 64 bits decides four elements, each with a probability within 1/131,072 of `p`. The scale follows
    from the actual probability, so that expectations are exact (in bfloat16, which rounds the scale, to 0.2 %). The
    generator is numpy's fastest, seeded from torch's.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, of any shape, with elements set to 0 at random and the others scaled up."""
        if not self.training or self.p in (0, 1) or x.device.type != "cpu":
            return super().forward(x)
        num_dropped = round(self.p * 65_536)  # of the 65,536 equally likely values of 16 bits
        generator = np.random.SFC64(int(torch.randint(2**63 - 1, ())))
        values = generator.random_raw((x.numel() + 3) // 4).view(np.int16)  # from -32,768 to 32,767
        keep = torch.from_numpy(values)[: x.numel()].view(x.shape).ge_(num_dropped - 32_768)  # 0 or 1
        scale = 65_536 / (65_536 - num_dropped)
        if x.dtype == torch.bfloat16:
            # arithmetic is slow in bfloat16, but its 16 bits can be set by multiplying integers
            scale_bits = torch.tensor(scale, dtype=x.dtype).view(torch.int16)
            return x * keep.mul_(scale_bits).view(x.dtype)
        return x * keep.to(x.dtype).mul_(scale)


class FusedSelfAttention(modeling.BertSelfAttention):
    """BERT's self-attention with one matmul for query, key and value, and torch's fused dot-product attention."""

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the context, of shape (B, L, D).

        hidden_states is of shape (B, L, D); attention_mask, of shape (B, 1, 1, L), is added to the scores: it is 0 for
        tokens and -10,000 for padding.
        """
        weight, bias = self._concatenate("weight"), self._concatenate("bias")  # (3 D, D), (3 D,)
        shape = (*hidden_states.shape[:2], 3, self.num_attention_heads, self.attention_head_size)  # (B, L, 3, H, S)
        qkv = F.linear(hidden_states, weight, bias).view(shape)
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))  # (B, H, L, S) each
        if self.training and self.dropout.p > 0 and q.device.type == "cpu":
            # torch's fused kernel for CPUs has no dropout, and its fallback is slower than this
            scores = (q / self.attention_head_size**0.5) @ k.transpose(-1, -2)  # (B, H, L, L)
            scores += attention_mask.to(q.dtype)
            context = self.dropout(scores.softmax(dim=-1)) @ v  # (B, H, L, S)
        else:
            dropout = self.dropout.p if self.training else 0.0
            context = F.scaled_dot_product_attention(q, k, v, attention_mask.to(q.dtype), dropout)
        return context.transpose(1, 2).flatten(2)

    def _get_parameters(self, name: str) -> list[torch.Tensor]:
        return [getattr(projection, name) for projection in (self.query, self.key, self.value)]

    def share_storage(self) -> None:
        """Store the weights of query, key and value one after the other, and so their biases, without changing them."""
        for name in ("weight", "bias"):
            parameters = self._get_parameters(name)
            for parameter, part in zip(parameters, torch.cat([p.data for p in parameters]).chunk(3)):
                parameter.data = part

    def _concatenate(self, name: str) -> torch.Tensor:
        """Return the weights or biases of query, key and value as one tensor.

        It is a view where no gradient is needed and they still are as `share_storage` has left them. Moving a model to
        another device or copying it separates them; then they are copied.
        """
        parameters = self._get_parameters(name)
        first = parameters[0]
        size, offset = first.numel(), first.storage_offset()
        is_traced = torch.compiler.is_compiling()  # also by torch.export, whose tensors have no storage
        is_shared = (
            not torch.is_grad_enabled()
            and not is_traced
            and all(
                p.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
                and (p.storage_offset(), p.shape, p.dtype) == (offset + i * size, first.shape, first.dtype)
                and p.is_contiguous()
                for i, p in enumerate(parameters)
            )
        )
        if not is_shared:
            return torch.cat(parameters)
        return first.as_strided((3 * len(first), *first.shape[1:]), first.stride())

    def attend_from_cls(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the context of [CLS] alone, the first position, of shape (B, 1, D); the inputs are those of `forward`.

        With a single query, two of the matmuls over all positions can be left out, because matmuls are associative:
        q (W_k x) = (q W_k) x projects the query and not every x, and sum(p W_v x) = W_v sum(p x) projects the mean of
        the hidden states and not each of them.
        """
        heads = self.num_attention_heads, self.attention_head_size
        key_weight, value_weight = self.key.weight.view(*heads, -1), self.value.weight.view(*heads, -1)  # (H, S, D)
        key_bias, value_bias = self.key.bias.view(heads), self.value.bias.view(heads)  # (H, S)
        q = self.query(hidden_states[:, 0]).view(-1, *heads) / self.attention_head_size**0.5  # (B, H, S)
        query_in_hidden_space = torch.einsum("bhs,hsd->bhd", q, key_weight)
        scores = query_in_hidden_space @ hidden_states.transpose(1, 2)  # (B, H, L)
        scores = scores + (q * key_bias).sum(-1, keepdim=True) + attention_mask[:, 0]
        attention_probs = self.dropout(scores.softmax(dim=-1))  # (B, H, L)
        context = torch.einsum("bhd,hsd->bhs", attention_probs @ hidden_states, value_weight)
        # without dropout the probabilities add up to 1
        context = context + attention_probs.sum(-1, keepdim=True) * value_bias  # (B, H, S)
        return context.flatten(1)[:, None]


class FastLayer(modeling.BertLayer):
    """A layer of BERT that can compute the output of [CLS] alone."""

    def forward_cls(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the output at the first position, of shape (B, 1, D); the inputs are those of `forward`."""
        context = self.attention.self.attend_from_cls(hidden_states, attention_mask)
        attention_output = self.attention.output(context, hidden_states[:, :1])
        return self.output(self.intermediate(attention_output), attention_output)


class FastClassifier(BertForSequenceClassification):
    """BERT as a classifier, which uses the output of [CLS] alone, so the last layer computes no other output.

    `self.bert`, the library's BertModel, still returns the outputs of all layers at all positions.
    """

    def forward(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits, of shape (B, num_labels), or with `labels`, of shape (B,), the cross-entropy loss.

        The other inputs are int64 tensors of shape (B, L). token_type_ids defaults to 0, attention_mask to 1.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden_states = self.bert.embeddings(input_ids, token_type_ids)  # (B, L, D)
        if hidden_states.is_cuda and torch.is_autocast_enabled("cuda"):
            hidden_states = hidden_states.to(torch.get_autocast_dtype("cuda"))
        extended_attention_mask = attention_mask[:, None, None, :].to(hidden_states.dtype)  # (B, 1, 1, L)
        extended_attention_mask = (1.0 - extended_attention_mask) * -10_000.0  # as in the library's BertModel
        logits = self.forward_from_embeddings(hidden_states, extended_attention_mask)
        return logits if labels is None else F.cross_entropy(logits.view(-1, self.num_labels), labels.view(-1))

    def forward_from_embeddings(
        self, hidden_states: torch.Tensor, extended_attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Return the logits, of shape (B, num_labels), of embedded texts.

        hidden_states is of shape (B, L, D), extended_attention_mask of shape (B, 1, 1, L), see `FusedSelfAttention`.
        """
        *layers, last_layer = self.bert.encoder.layer
        for layer in layers:
            hidden_states = layer(hidden_states, extended_attention_mask)
        cls_output = last_layer.forward_cls(hidden_states, extended_attention_mask)
        return self.classifier(self.dropout(self.bert.pooler(cls_output)))


FUSED_CLASSES: dict[type, type] = {
    modeling.BertLayerNorm: FusedLayerNorm,
    modeling.BertSelfAttention: FusedSelfAttention,
    modeling.BertLayer: FastLayer,
    BertForSequenceClassification: FastClassifier,
    torch.nn.Dropout: FastDropout,
}


def use_fused_kernels(model: Model) -> Model:
    """Replace the classes of a pytorch-pretrained-bert model's modules by those above, in place; return the model.

    Other instances stay as they are. Names and values of the weights do not change, and without dropout the outputs
    differ from the library's by at most 1e-5. Raises TypeError for another library's model.
    """
    check_type("model", model, modeling.BertPreTrainedModel, "load_model")
    for module in model.modules():
        module.__class__ = FUSED_CLASSES.get(type(module), type(module))
        if isinstance(module, FusedSelfAttention):
            module.share_storage()
        if getattr(module, "intermediate_act_fn", None) is modeling.gelu:
            module.intermediate_act_fn = F.gelu  # type: ignore[assignment]  # a plain attribute, not a submodule
    return model
