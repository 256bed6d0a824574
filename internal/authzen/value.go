package authzen

// ParseValue reads one JSON value as a member of properties is read: a Go value
// that policy.NewProperties takes. Errors are of kind policy.BadRequest.
func ParseValue(src []byte) (any, error) {
	d := newDecoder(src)
	v, err := d.value("value")
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return nil, asBadRequest(err)
	}
	return v, nil
}
