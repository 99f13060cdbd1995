"""pytorch-pretrained-bert's BERT with fused kernels: the same parameters, the same numbers, less time."""

from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_pretrained_bert import modeling
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.utils.validation import check_type


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

    def attend_from_cls(self, hidden_states, attention_mask):
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
        context = self.attention.self.attend_from_cls(hidden_states, attention_mask)
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


def use_fused_kernels(model):
    """Let a pytorch-pretrained-bert model compute with torch's fused operations; returns it.

    Only this instance changes. Names and values of its weights stay, and without dropout its outputs agree with the
    library's to 1e-5. Raises TypeError for a model of another library.
    """
    check_type("model", model, modeling.BertPreTrainedModel, "load_model")
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
