"""The model: checkpoint (names, dtype rules, repairs), encoder, decoder, and Blip2Model, their face."""
