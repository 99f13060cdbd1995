"""Training steps captured as CUDA graphs and replayed (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

In eager mode a training step is a thousand kernel launches, and launching them takes the CPU longer than a fast GPU
needs to run them. So the forward and the backward pass of a batch through BERT's layers are captured, once for each
shape of batch, and replayed from then on, as two launches.

`torch.cuda.make_graphed_callables` could replace `GraphedStep` and `GraphReplay`, nearly half of this module. But it
keeps a gradient of every parameter for each shape and adds them with a kernel launch per parameter; these graphs add to
one set of gradients as they run. (This follows from its source code and was not measured.)
"""

import os
from collections import Counter
from typing import Any

import torch
from pytorch_pretrained_bert.modeling import BertForSequenceClassification
from torch.autograd.function import once_differentiable

# Off unless this environment variable is 1: the tests at the end of tests/training/test_cuda_graphs.py need a GPU, and
# not all of them have passed on one.
ENV_VAR = "BERT_CUDA_GRAPHS"

CAPTURE_AFTER = 3  # a shape is captured when it occurs for the third time: capturing takes about as long as five steps

ACTIVATION_BYTES = 34  # kept for the backward pass per token, layer and hidden unit (measured with bert-base)


class EncoderModule(torch.nn.Module):
    """The part of a model that is captured: layers, pooler and classifier, without the embeddings."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, hidden_states: torch.Tensor, extended_attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, num_labels) for hidden states of shape (batch, length, hidden)."""
        # the method of the class, as `capture_layers` replaces that of the instance
        return type(self.model).forward_from_embeddings(self.model, hidden_states, extended_attention_mask)


class GraphedStep:
    """The forward and the backward pass of batches of one shape, as two CUDA graphs.

    Both read and write fixed memory: copy the inputs to `inputs` and replay `forward`, which writes `outputs`; copy the
    gradient of the outputs to `outputs_gradient` and replay `backward`, which writes the gradient of the hidden states
    to `hidden_gradient` and adds those of the parameters to `gradients`.
    """

    def __init__(
        self,
        encoder: EncoderModule,
        parameters: dict[str, torch.Tensor],
        gradients: list[torch.Tensor],
        inputs: tuple[torch.Tensor, ...],
        pool: Any,
    ) -> None:
        """Capture both passes for inputs like these; `parameters` and `gradients` are in the same order."""
        hidden_states, extended_attention_mask = inputs
        self.inputs = hidden_states.detach().clone().requires_grad_(), extended_attention_mask.clone()
        differentiable = self.inputs[0], *parameters.values()
        use_autocast = torch.is_autocast_enabled("cuda")

        def forward() -> torch.Tensor:
            with torch.autocast("cuda", enabled=use_autocast, cache_enabled=False):
                return torch.func.functional_call(encoder, parameters, self.inputs)

        def forward_backward() -> None:
            outputs = forward()
            torch.autograd.grad(outputs, differentiable, torch.zeros_like(outputs))

        with torch.autocast("cuda", enabled=False):  # the backward pass runs without autocast
            # warm-up, on a side stream as PyTorch's notes say: what libraries set up on first use must not be captured
            side_stream, current_stream = torch.cuda.Stream(), torch.cuda.current_stream()
            side_stream.wait_stream(current_stream)
            with torch.cuda.stream(side_stream):
                for _ in range(3):
                    forward_backward()
            current_stream.wait_stream(side_stream)

            self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.forward, pool=pool):
                outputs = forward()
            self.outputs = outputs.detach()
            self.outputs_gradient = torch.zeros_like(outputs)
            with torch.cuda.graph(self.backward, pool=pool):
                self.hidden_gradient, *step_gradients = torch.autograd.grad(
                    outputs, differentiable, self.outputs_gradient
                )
                torch._foreach_add_(gradients, step_gradients)


class GraphReplay(torch.autograd.Function):
    """Replays a `GraphedStep` as one operation of autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        extended_attention_mask: torch.Tensor,
        step: GraphedStep,
        graphed: "GraphedEncoder",
    ) -> torch.Tensor:
        """Return the logits of a batch."""
        ctx.step, ctx.graphed = step, graphed
        for static_input, value in zip(step.inputs, (hidden_states, extended_attention_mask)):
            static_input.copy_(value)
        step.forward.replay()
        return step.outputs.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Add to the gradients of the parameters; return the gradient of the hidden states."""
        ctx.graphed.bind_gradients()
        ctx.step.outputs_gradient.copy_(outputs_gradient)
        ctx.step.backward.replay()
        ctx.graphed.backward_pending = False
        return ctx.step.hidden_gradient.clone(), None, None, None


class GraphedEncoder:
    """Replaces `forward_from_embeddings` of a model: replays a graph for each batch shape that occurs often enough.

    It runs in eager mode when no gradients are needed, and between the forward and the backward pass of a replayed
    batch, whose fixed memory another batch would overwrite.
    """

    def __init__(self, model: BertForSequenceClassification) -> None:
        self.encoder = EncoderModule(model)
        trained = {name: p for name, p in self.encoder.named_parameters() if "embeddings." not in name}
        self.parameters = list(trained.values())
        # the same memory in new tensors: as long as a loss is alive, autograd keeps a node for each parameter, bound to
        # the stream of eager mode, which would make a capture fail
        self.captured_parameters = {name: p.detach().requires_grad_() for name, p in trained.items()}
        self.gradients = [torch.zeros_like(p) for p in self.parameters]
        self.pool = torch.cuda.graph_pool_handle()  # all shapes share memory, as one batch is processed at a time
        self.shape_counts: Counter[tuple[torch.Size, torch.dtype]] = Counter()
        self.steps: dict[tuple[torch.Size, torch.dtype], GraphedStep] = {}
        self.backward_pending = False

    def __call__(self, hidden_states: torch.Tensor, extended_attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, num_labels), like `EncoderModule`."""
        if self.backward_pending or not (self.encoder.model.training and torch.is_grad_enabled()):
            return self.encoder(hidden_states, extended_attention_mask)
        shape = hidden_states.shape, hidden_states.dtype
        self.shape_counts[shape] += 1
        if self.shape_counts[shape] < CAPTURE_AFTER:
            return self.encoder(hidden_states, extended_attention_mask)
        if shape not in self.steps:
            self.steps[shape] = self.capture(hidden_states, extended_attention_mask)
        self.backward_pending = True
        return GraphReplay.apply(hidden_states, extended_attention_mask, self.steps[shape], self)

    def capture(self, *inputs: torch.Tensor) -> GraphedStep:
        """Capture a `GraphedStep`; raise RuntimeError, with a hint, if this GPU or PyTorch version cannot."""
        torch.cuda.empty_cache()  # PyTorch cannot free cached memory during a capture
        try:
            return GraphedStep(self.encoder, self.captured_parameters, self.gradients, inputs, self.pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # PyTorch cannot continue in this process
            raise RuntimeError(
                f"CUDA graph capture failed: {error}\nUnset the environment variable {ENV_VAR} and restart the "
                "notebook: training resumes from the last checkpoint, but small batches are slower"
            ) from error

    def bind_gradients(self) -> None:
        """Make `gradients`, to which the graphs add, the `grad` of the parameters, keeping its current values."""
        unbound = [pair for pair in zip(self.parameters, self.gradients) if pair[0].grad is not pair[1]]
        if unbound:
            torch._foreach_zero_([gradient for _, gradient in unbound])
        for parameter, gradient in unbound:
            if parameter.grad is not None:
                gradient.add_(parameter.grad)
            parameter.grad = gradient


def capture_layers(model: BertForSequenceClassification, max_tokens: int) -> None:
    """Capture a model's layers as CUDA graphs until `release_layers`, if BERT_CUDA_GRAPHS=1 and GPU memory allows.

    max_tokens : number of tokens in the largest batch, padding included
    """
    if os.environ.get(ENV_VAR) != "1":
        return
    activations = ACTIVATION_BYTES * max_tokens * model.config.num_hidden_layers * model.config.hidden_size
    free, _ = torch.cuda.mem_get_info()
    if 5 * activations < free:  # graphs and eager mode, both with each text twice (R_DROP), and a reserve
        model.forward_from_embeddings = GraphedEncoder(model)


def release_layers(model: BertForSequenceClassification) -> None:
    """Undo `capture_layers`."""
    vars(model).pop("forward_from_embeddings", None)
