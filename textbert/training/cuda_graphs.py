"""What a GPU does for a batch, started as a whole.

A step of a training is a thousand small pieces of work for a GPU, and a processor needs longer to start them one by one
than a fast GPU to do them. So the way of a batch through BERT's layers and back is captured, once for each shape of
batches, and replayed from then on: a CUDA graph (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

import os
from collections import Counter

import torch
from torch.autograd.function import once_differentiable

SWITCH = "BERT_CUDA_GRAPHS"

MET = 3  # a shape is captured when it comes the third time: that takes about as long as five steps

BYTES = 34  # kept for the way back, for each word piece, layer and number of the hidden size (measured with bert-base)


class GraphedEncoder(torch.nn.Module):
    """What is captured: all of a fast model that follows its embeddings."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, hidden_states, extended_attention_mask):
        return type(self.model).forward_from_embeddings(self.model, hidden_states, extended_attention_mask)


class GraphedStep:
    """The way of batches of one shape through the layers and back.

    Going back, the gradients of `parameters`, a dict from names to tensors, are added to `gradients`, in that order.
    """

    def __init__(self, encoder, parameters, gradients, inputs, pool):
        hidden_states, blocked = inputs
        self.inputs = hidden_states.detach().clone().requires_grad_(), blocked.clone()
        wanted = self.inputs[0], *parameters.values()
        autocast = {"enabled": torch.is_autocast_enabled("cuda"), "cache_enabled": False}

        def go_forward():
            with torch.autocast("cuda", **autocast):
                return torch.func.functional_call(encoder, parameters, self.inputs)

        def go_both_ways():
            outputs = go_forward()
            torch.autograd.grad(outputs, wanted, torch.zeros_like(outputs))

        beside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        with torch.autocast("cuda", enabled=False):  # going back, as ever, without it
            beside.wait_stream(here)
            with torch.cuda.stream(beside):
                for _ in range(3):  # what libraries set up at first must not be captured
                    go_both_ways()
            here.wait_stream(beside)
            self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.forward, pool=pool):
                outputs = go_forward()
            self.outputs_gradient = torch.zeros_like(outputs)
            with torch.cuda.graph(self.backward, pool=pool):
                self.hidden_gradient, *found = torch.autograd.grad(outputs, wanted, self.outputs_gradient)
                torch._foreach_add_(gradients, found)
        self.outputs = outputs.detach()


class GraphReplay(torch.autograd.Function):
    """A `GraphedStep`, for autograd."""

    @staticmethod
    def forward(ctx, hidden_states, blocked, captured, layers):
        ctx.captured, ctx.layers = captured, layers
        for kept, given in zip(captured.inputs, (hidden_states, blocked)):
            kept.copy_(given)
        captured.forward.replay()
        return captured.outputs.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, outputs_gradient):
        ctx.layers.bind_gradients()
        ctx.captured.outputs_gradient.copy_(outputs_gradient)
        ctx.captured.backward.replay()
        ctx.layers.waiting = False
        return ctx.captured.hidden_gradient.clone(), None, None, None


class GraphedLayers:
    """The layers, pooler and classifier of a fast model in training, replayed for each shape met often enough.

    What it does not replay, it lets the model do: when there is nothing to learn, or when a batch has not gone back yet
    and the next one comes.
    """

    def __init__(self, model):
        self.encoder = GraphedEncoder(model)
        learning = {name: p for name, p in self.encoder.named_parameters() if "embeddings." not in name}
        self.parameters = list(learning.values())
        # the same numbers as other tensors: what autograd keeps with the parameters, as long as somebody holds a loss,
        # belongs to the usual stream and would break the capture
        self.captured_parameters = {name: p.detach().requires_grad_() for name, p in learning.items()}
        self.gradients = [torch.zeros_like(p) for p in self.parameters]
        self.pool = torch.cuda.graph_pool_handle()  # shapes share their memory, as one at a time is on its way
        self.met, self.passes, self.waiting = Counter(), {}, False

    def __call__(self, hidden_states, blocked):
        if self.waiting or not (self.encoder.model.training and torch.is_grad_enabled()):
            return self.encoder(hidden_states, blocked)
        kind = hidden_states.shape, hidden_states.dtype
        self.met[kind] += 1
        if self.met[kind] < MET:
            return self.encoder(hidden_states, blocked)
        if kind not in self.passes:
            self.passes[kind] = self.capture(hidden_states, blocked)
        self.waiting = True
        return GraphReplay.apply(hidden_states, blocked, self.passes[kind], self)

    def capture(self, *inputs):
        """Return a `GraphedStep`; RuntimeError, with what to do, if this GPU and this PyTorch cannot make one."""
        torch.cuda.empty_cache()  # while it captures, PyTorch cannot give back what it keeps at hand
        try:
            return GraphedStep(self.encoder, self.captured_parameters, self.gradients, inputs, self.pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # after which PyTorch cannot go on in this process
            raise RuntimeError(
                f"the steps of this training could not be captured as CUDA graphs: {error}\nRestart the notebook with "
                f"the environment variable {SWITCH}=0: it goes on from the last checkpoint, slower on small batches"
            ) from error

    def bind_gradients(self):
        """Let the parameters' gradients, whether there are any or none, stand where the captured passes add to them."""
        apart = [pair for pair in zip(self.parameters, self.gradients) if pair[0].grad is not pair[1]]
        if apart:
            torch._foreach_zero_([gradient for _, gradient in apart])
        for parameter, gradient in apart:
            if parameter.grad is not None:
                gradient.add_(parameter.grad)
            parameter.grad = gradient


def capture_layers(model, pieces):
    """Let a fast model on a GPU train by `GraphedLayers`, until `release_layers`, if its memory is large enough.

    The environment variable BERT_CUDA_GRAPHS=0 forbids it. pieces : word pieces, padding included, of the largest batch
    """
    if os.environ.get(SWITCH) == "0":
        return
    config = model.config
    size = BYTES * pieces * config.num_hidden_layers * config.hidden_size
    free, _ = torch.cuda.mem_get_info()
    if 5 * size < free:  # for what is captured and what is not, should each text come twice, and to spare
        model.forward_from_embeddings = GraphedLayers(model)


def release_layers(model):
    """Let a model work by itself again."""
    vars(model).pop("forward_from_embeddings", None)
